from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_vocab.initializers import Mean
from tests.initializers.contexts import make_context

MANY = [f"zq{place}" for place in range(400)]


def effective_rank(rows: Tensor) -> float:
    """exp of the entropy of the normalised singular values (Roy & Vetterli, 2007)."""
    values = torch.linalg.svdvals(rows.double())
    shares = values / values.sum()
    return float(torch.exp(-(shares * shares.log()).sum()))


def spread_rows(num_rows: int = 300, dim: int = 8) -> Tensor:
    """Rows with a mean of their own and correlated columns."""
    mixing = torch.eye(dim) + 0.5 * torch.ones(dim, dim).tril(-1)
    return torch.randn(num_rows, dim) @ mixing + torch.linspace(-1, 1, dim)


def test_without_noise_every_row_is_the_mean_of_rows_with_a_token() -> None:
    rows = spread_rows(310)
    rows[300:] = 1e6  # padded rows
    inputs, outputs = Mean(noise=0).rows(make_context(rows))
    assert outputs is None
    assert torch.allclose(inputs, rows[:300].mean(0).expand(3, -1), atol=1e-6)


def test_an_untied_head_gets_its_own_mean() -> None:
    input_rows, output_rows = spread_rows(), spread_rows() - 5
    _, outputs = Mean(noise=0).rows(make_context(input_rows, output_rows))
    assert outputs is not None
    assert torch.allclose(outputs, output_rows.mean(0).expand(3, -1), atol=1e-5)


def test_full_noise_has_mean_and_covariance_of_the_base() -> None:
    rows = spread_rows(310)
    rows[300:] = 1e6
    made = Mean(noise=1).rows(make_context(rows, words=[f"zq{i}" for i in range(4000)]))[0]
    expected = torch.cov(rows[:300].double().T, correction=0).float()
    assert torch.allclose(made.mean(0), rows[:300].mean(0), atol=0.08)
    assert torch.allclose(torch.cov(made.T), expected, atol=0.15 * expected.max().item())


def test_noise_scales_the_deviation_from_the_mean() -> None:
    rows = spread_rows()
    small = Mean(noise=0.1).rows(make_context(rows))[0] - rows.mean(0)
    large = Mean(noise=0.5).rows(make_context(rows))[0] - rows.mean(0)
    assert torch.allclose(5 * small, large, atol=1e-4)


def test_the_default_keeps_a_high_effective_rank_in_half_precision() -> None:
    rows = torch.randn(300, 32) + 0.5 * torch.ones(32)
    made = Mean().rows(make_context(rows, words=MANY))[0].bfloat16().float()
    base = effective_rank(rows)
    assert effective_rank(made) > 0.6 * base
    tiny = Mean(noise=1e-9**0.5).rows(make_context(rows, words=MANY))[0].bfloat16().float()
    assert effective_rank(tiny) < 0.1 * base  # what a covariance times 1e-9 leaves
    assert len({tuple(row) for row in made.tolist()}) == len(MANY)


def test_fewer_rows_than_dimensions_give_rows_in_their_span() -> None:
    rows = torch.zeros(300, 40)
    rows[:6] = torch.randn(6, 40)  # the rest was never trained, so the covariance is singular
    made = Mean(noise=1).rows(make_context(rows, words=MANY))[0] - rows[:6].mean(0)
    centred = rows[:6] - rows[:6].mean(0)
    assert torch.linalg.matrix_rank(made, rtol=1e-3) == 5
    inside = made @ torch.linalg.pinv(centred) @ centred
    assert torch.allclose(inside, made, atol=1e-3)
    # The trace of the sample covariance comes near the trace of the rows' own.
    trace = centred.square().sum() / 6
    assert made.square().sum().item() / len(MANY) == pytest.approx(trace.item(), rel=0.15)


def test_the_seed_decides_and_rows_follow_the_ids() -> None:
    rows = spread_rows()
    first = Mean().rows(make_context(rows, words=["catdog", "cats"], seed=5))[0]
    assert torch.equal(Mean().rows(make_context(rows, words=["cats", "catdog"], seed=5))[0], first)
    assert not torch.equal(Mean().rows(make_context(rows, words=["a1", "b1"], seed=6))[0], first)


def test_half_precision_is_computed_in_float32() -> None:
    rows = spread_rows().bfloat16()
    made = Mean().rows(make_context(rows))[0]
    assert made.dtype == torch.float32
    assert torch.allclose(made, Mean().rows(make_context(rows.float()))[0], atol=1e-6)


def test_one_new_token_gets_one_row() -> None:
    assert Mean().rows(make_context(spread_rows(), words=["catdog"]))[0].shape == (1, 8)


@pytest.mark.parametrize("noise", [-0.1, float("nan")])
def test_a_negative_noise_is_refused(noise: float) -> None:
    with pytest.raises(ValueError, match="noise must be 0 or positive"):
        Mean(noise)
