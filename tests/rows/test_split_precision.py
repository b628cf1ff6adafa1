"""New rows are float32 beside old rows of half precision."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_vocab.rows.split import SplitEmbedding, SplitHead, SplitRows
from tests.rows.test_split import make_rows

HALVES = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("bias", [False, True])
def test_a_cast_leaves_new_rows_their_values_and_their_parameters(
    dtype: torch.dtype, bias: bool
) -> None:
    rows = make_rows(bias=bias)
    new = [part for part in (rows.new, rows.new_bias) if part is not None]
    before = [part.detach().clone() for part in new]
    for part in new:
        part.grad = torch.randn_like(part)
    module = nn.ModuleDict({"head": SplitHead(rows)}).to(dtype)
    assert rows.old.dtype == rows.padding.dtype == dtype
    assert [part for part in (rows.new, rows.new_bias) if part is not None] == new
    for part, value in zip(new, before, strict=True):
        assert torch.equal(part, value)
        assert part.grad is not None
        assert part.grad.dtype == torch.float32
    assert module.double()["head"].rows.new.dtype == torch.float64  # type: ignore[union-attr]


def test_rows_that_are_made_of_half_precision_are_stored_in_float32() -> None:
    whole = make_rows(bias=True)
    assert whole.new_bias is not None
    rows = SplitRows(
        nn.Parameter(whole.old.detach().bfloat16()),
        whole.new.detach().bfloat16(),
        whole.new_ids,
        whole.padding.bfloat16(),
        old_bias=nn.Parameter(torch.zeros(5, dtype=torch.bfloat16)),
        new_bias=whole.new_bias.detach().bfloat16(),
        padding_bias=torch.zeros(2, dtype=torch.bfloat16),
    )
    assert (rows.new.dtype, rows.new_bias.dtype) == (torch.float32, torch.float32)  # type: ignore[union-attr]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("bias", [False, True])
def test_the_model_sees_the_rows_that_are_exported(dtype: torch.dtype, bias: bool) -> None:
    rows, ids = make_rows(bias=bias).to(dtype), torch.arange(9)
    matrix, vector = rows.merged()
    assert matrix.dtype == dtype
    assert torch.equal(SplitEmbedding(rows)(ids), matrix)
    hidden = torch.randn(3, 4).to(dtype)
    expected = F.linear(hidden, matrix, vector)
    found = SplitHead(rows)(hidden)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected)


def test_small_steps_add_up() -> None:
    rows = make_rows().bfloat16()
    before = rows.new.detach().clone()
    optimizer = torch.optim.SGD(rows.parameters(), lr=2.0**-12)
    for _ in range(16):  # each is below half of the spacing of bfloat16 numbers near 1
        rows.new.grad = torch.ones_like(rows.new)
        optimizer.step()
    torch.testing.assert_close(rows.new, before - 2.0**-8)


def test_the_gradient_of_many_looked_up_copies_is_summed_in_float32() -> None:
    rows = make_rows().bfloat16()
    ids = rows.new_ids[:1].expand(1024)
    SplitEmbedding(rows)(ids).sum().backward()  # bfloat16 sums of ones stall at 256
    assert rows.new.grad is not None
    assert rows.new.grad[0].tolist() == [1024.0] * 4


def test_a_checkpoint_of_half_precision_loads() -> None:
    rows = make_rows().bfloat16()
    state = {name: _halved(value) for name, value in copy.deepcopy(rows.state_dict()).items()}
    rows.load_state_dict(state)
    assert rows.new.dtype == torch.float32
    assert torch.equal(rows.new, state["new"].float())


def _halved(value: Tensor) -> Tensor:
    return value.bfloat16() if value.is_floating_point() else value
