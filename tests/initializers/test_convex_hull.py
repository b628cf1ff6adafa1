from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightning_vocab.initializers import Mixture
from lightning_vocab.initializers.convex_hull import ConvexHull
from tests.initializers.contexts import make_context

MANY = [f"zq{place}" for place in range(400)]


def base(num_rows: int = 306) -> Tensor:
    rows = torch.randn(num_rows, 8) + 1
    rows[300:] = 1e6  # padded rows
    return rows


@given(seed=st.integers(0, 1000), k=st.integers(1, 40))
def test_no_hidden_state_prefers_a_new_token_to_all_old_ones(seed: int, k: int) -> None:
    inputs, outputs, bias = base(), base(), torch.randn(306)
    context = make_context(inputs, outputs, output_bias=bias, seed=seed)
    method = ConvexHull(k)
    made = method.rows(context)[1]
    assert made is not None
    hidden = 10 * torch.randn(50, 8)
    new = hidden @ made.T + method.bias(context)
    old = hidden @ outputs[:300].T + bias[:300]
    assert (new.amax(dim=1) <= old.amax(dim=1) + 1e-4).all()
    assert (new.amin(dim=1) >= old.amin(dim=1) - 1e-4).all()


def test_rows_and_bias_get_the_same_weights_through_a_mixture_too() -> None:
    rows = base()
    context = make_context(rows, rows, output_bias=rows[:, 0], words=["catdog", "cats"])
    for method in (ConvexHull(), Mixture(ConvexHull())):
        assert torch.allclose(method.rows(context)[0][:, 0], method.bias(context))


def test_both_ends_get_the_same_weights() -> None:
    rows = base()
    inputs, outputs = ConvexHull().rows(make_context(rows, 2 * rows))
    assert outputs is not None
    torch.testing.assert_close(outputs, 2 * inputs)


def test_one_row_is_a_copy() -> None:
    rows = base().bfloat16()
    made = ConvexHull(k=1).rows(make_context(rows))[0]
    assert all((rows[:300].float() == row).all(dim=1).any() for row in made)


@pytest.mark.parametrize("k", [3, 20])
def test_rows_spread_as_said(k: int) -> None:
    rows = torch.randn(300, 8)
    made = ConvexHull(k).rows(make_context(rows, words=MANY))[0]
    assert torch.allclose(made.mean(0), rows.mean(0), atol=0.15)
    share = ((made - rows.mean(0)).square().mean() / rows.var(dim=0, correction=0).mean()).item()
    assert share == pytest.approx(2 / (k + 1), rel=0.15)


def test_the_seed_decides_and_calls_draw_anew() -> None:
    rows, method = base(), ConvexHull()
    first, second = (method.rows(make_context(rows, seed=5))[0] for _ in range(2))
    assert torch.equal(first, second)
    context = make_context(rows, rows, output_bias=rows[:, 0], seed=5)
    assert not torch.equal(method.rows(context)[0], method.rows(context)[0])


def test_no_row_is_none() -> None:
    with pytest.raises(ValueError, match="k must be 1 or more: got 0"):
        ConvexHull(k=0)
