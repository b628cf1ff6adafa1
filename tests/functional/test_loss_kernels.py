from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_vocab.functional import loss_kernels
from lightning_vocab.functional.linear_cross_entropy import RowBlock
from lightning_vocab.functional.loss_kernels import (
    Trial,
    fastest,
    loss_of_kernel,
    try_kernels,
    usable_kernels,
)

Case = tuple[Tensor, Tensor, list[RowBlock]]


def make_case(dtype: torch.dtype = torch.float32, *, bias: bool = False) -> Case:
    """Old rows of the dtype, new ones of float32, padding rows that do not train."""

    def block(rows: int, of: torch.dtype, trains: bool) -> RowBlock:
        weight = (torch.randn(rows, 16) / 4).to(of).requires_grad_(trains)
        return RowBlock(weight, torch.randn(rows).to(of).requires_grad_(trains) if bias else None)

    hidden = torch.randn(4, 30, 16).to(dtype).requires_grad_()
    targets = torch.randint(50, (4, 30))
    targets[0, :7] = -100
    blocks = [block(40, dtype, True), block(10, torch.float32, True), block(3, dtype, False)]
    return hidden, targets, blocks


@pytest.mark.parametrize("bias", [False, True])
def test_the_loss_of_torch_gives_our_numbers(bias: bool) -> None:
    own, other = try_kernels(["torch"], *make_case(bias=bias), logit_scale=0.5)
    assert (own.name, other.name) == ("own", "torch")
    assert other.is_equal
    assert 0 < other.difference < 1e-6


def test_the_loss_of_torch_is_not_asked_for_half_precision() -> None:
    hidden, _, blocks = make_case(torch.bfloat16)
    assert usable_kernels(hidden, blocks) == []
    hidden, _, blocks = make_case()
    with torch.autocast("cpu", torch.bfloat16):
        assert usable_kernels(hidden, blocks) == []


@pytest.mark.gpu
def test_the_loss_of_liger_kernel_gives_our_numbers() -> None:
    pytest.importorskip("liger_kernel")
    hidden, targets, blocks = make_case()
    cases = [RowBlock(each.weight.detach().cuda().requires_grad_()) for each in blocks]
    hidden = hidden.detach().cuda().requires_grad_()
    assert "liger" in usable_kernels(hidden, cases)
    for options in ({}, {"softcap": 3.0}):
        assert try_kernels(["liger"], hidden, targets.cuda(), cases, **options)[1].is_equal


def test_a_trial_leaves_no_gradient_behind() -> None:
    hidden, targets, blocks = make_case()
    try_kernels(["torch"], hidden, targets, blocks)
    assert hidden.grad is None
    assert all(block.weight.grad is None for block in blocks)


@pytest.mark.parametrize("change", ["frozen", "dead", "capped", "as it is"])
def test_other_kernels_are_asked_only_where_all_rows_train_and_they_can(change: str) -> None:
    hidden, _, blocks = make_case()
    softcap = 3.0 if change == "capped" else None
    if change == "frozen":
        blocks[0].weight.requires_grad_(False)
    if change == "dead":
        blocks[0] = blocks[0]._replace(dead=torch.tensor([4]))
    assert usable_kernels(hidden, blocks, softcap) == (["torch"] if change == "as it is" else [])


def test_a_faster_kernel_with_other_numbers_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(states: Tensor, weight: Tensor, *_: Any) -> Tensor:
        return (states.sum() + weight.sum()) * 1.01

    monkeypatch.setitem(loss_kernels._SUMS, "torch", wrong)
    trials = try_kernels(["torch"], *make_case())
    assert not trials[1].is_equal
    assert fastest([trials[0], trials[1]._replace(seconds=0.0)]) == "own"


def test_the_fastest_equal_kernel_is_taken() -> None:
    own, torchs = Trial("own", 1.0, 0.0, True), Trial("torch", 0.9, 0.0, True)
    assert fastest([own, torchs, Trial("liger", 0.5, 0.0, True)]) == "liger"
    assert fastest([own, torchs._replace(seconds=0.96)]) == "own"


def test_where_nothing_is_scored_the_loss_is_zero() -> None:
    hidden, targets, blocks = make_case()
    loss = loss_of_kernel("torch")(hidden, torch.full_like(targets, -100), blocks)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert loss == 0
    assert hidden.grad is not None
    assert not hidden.grad.any()
