from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_vocab.functional import RowBlock, block_shares
from tests.functional.test_linear_cross_entropy import OPTIONS, SIZES, make_inputs


def naive(hidden: Tensor, blocks: list[RowBlock], options: dict[str, Any]) -> Tensor:
    """The softmax over all columns, dead ones at zero."""
    parts = []
    for block in blocks:
        assert block.bias is not None
        logits = options.get("logit_scale", 1.0) * (hidden @ block.weight.T + block.bias)
        if cap := options.get("softcap"):
            logits = cap * torch.tanh(logits / cap)
        if block.dead is not None:
            logits[..., block.dead] = float("-inf")
        parts.append(logits)
    return torch.cat(parts, dim=-1).softmax(-1)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("chunk_size", [1, 4, 512])
def test_shares_are_the_sums_of_the_softmax(options: dict[str, float], chunk_size: int) -> None:
    hidden, _, blocks = make_inputs()
    expected = naive(hidden, blocks, options)
    found = block_shares(hidden, blocks, chunk_size=chunk_size, **options)
    sums = torch.stack(
        [part.sum(-1) for part in torch.split(expected, list(SIZES), dim=-1)], dim=-1
    )
    torch.testing.assert_close(found.mass, sums)
    assert torch.equal(found.best, expected.argmax(-1))
    assert not found.mass.requires_grad


def test_the_first_of_equal_columns_is_best() -> None:
    blocks = [RowBlock(torch.zeros(2, 3)), RowBlock(torch.zeros(2, 3))]
    assert block_shares(torch.ones(1, 3), blocks).best.tolist() == [0]


def test_half_precision_adds_up_in_float32() -> None:
    hidden, rows = torch.randn(5, 8).bfloat16(), torch.randn(4000, 8).bfloat16()
    mass = block_shares(hidden, [RowBlock(rows[:3000]), RowBlock(rows[3000:])]).mass
    assert mass.dtype == torch.float32
    torch.testing.assert_close(mass.sum(-1), torch.ones(5))


def test_a_block_whose_rows_are_all_dead_has_no_mass() -> None:
    dead = RowBlock(torch.ones(2, 3), dead=torch.tensor([0, 1]))
    shares = block_shares(torch.ones(4, 3), [dead, RowBlock(torch.ones(2, 3))])
    assert shares.mass.tolist() == [[0.0, 1.0]] * 4
    assert shares.best.tolist() == [2] * 4
