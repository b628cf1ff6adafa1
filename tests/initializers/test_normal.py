from __future__ import annotations

import pytest
import torch

from lightning_vocab.initializers import Normal
from tests.initializers.contexts import make_context

MANY = [f"zq{place}" for place in range(64)]


def test_entries_have_the_given_spread_around_zero() -> None:
    inputs, outputs = Normal(0.25).rows(make_context(torch.ones(300, 64), words=MANY))
    assert outputs is None
    assert inputs.shape == (64, 64)
    assert inputs.std().item() == pytest.approx(0.25, rel=0.05)
    assert inputs.mean().item() == pytest.approx(0, abs=0.02)


def test_without_a_number_each_matrix_keeps_its_own_spread() -> None:
    inputs, outputs = torch.randn(310, 64) * 0.5, torch.randn(310, 64) * 3
    inputs[300:], outputs[300:] = 1e6, 1e6  # padded rows
    made_inputs, made_outputs = Normal().rows(make_context(inputs, outputs, words=MANY))
    assert made_outputs is not None
    assert made_inputs.std().item() == pytest.approx(0.5, rel=0.05)
    assert made_outputs.std().item() == pytest.approx(3, rel=0.05)


def test_input_and_output_rows_are_drawn_apart() -> None:
    inputs, outputs = Normal(1).rows(make_context(torch.ones(300, 64), torch.ones(300, 64)))
    assert outputs is not None
    assert not torch.equal(inputs, outputs)


def test_the_seed_decides_and_rows_follow_the_ids() -> None:
    rows = torch.ones(300, 8)
    first = Normal(1).rows(make_context(rows, words=["catdog", "cats"], seed=5))[0]
    other = Normal(1).rows(make_context(rows, words=["cats", "catdog"], seed=5))[0]
    assert torch.equal(first, other)
    assert not torch.equal(first, Normal(1).rows(make_context(rows, words=["a1", "b1"], seed=6))[0])


def test_half_precision_is_drawn_in_float32() -> None:
    rows = torch.ones(300, 8)
    expected = Normal(1).rows(make_context(rows))[0]
    assert torch.equal(Normal(1).rows(make_context(rows.bfloat16()))[0], expected)


def test_one_new_token_gets_one_row() -> None:
    assert Normal().rows(make_context(torch.randn(300, 8), words=["catdog"]))[0].shape == (1, 8)


@pytest.mark.parametrize("std", [0.0, -1.0, float("nan")])
def test_a_spread_that_is_none_is_refused(std: float) -> None:
    with pytest.raises(ValueError, match="std must be positive"):
        Normal(std)
