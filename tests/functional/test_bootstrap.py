from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor

from lightning_vocab.functional.bootstrap import ratio_interval, resampled_sums


def seeded(seed: int = 3) -> Generator:
    return Generator().manual_seed(seed)


def test_weights_are_poisson_of_mean_one() -> None:
    weights = resampled_sums(torch.eye(50), 4000, seeded())  # a column a row: its weights
    for k in range(5):
        share = float((weights == k).double().mean())
        assert share == pytest.approx(math.exp(-1) / math.factorial(k), abs=0.005)
    assert float(weights.mean()) == pytest.approx(1.0, abs=0.01)
    assert float(weights.var()) == pytest.approx(1.0, abs=0.02)


def test_rows_of_one_generator_have_the_same_weights_however_they_are_batched() -> None:
    values = torch.arange(60.0).view(20, 3)
    generator = seeded()
    parts = [resampled_sums(part, 33, generator) for part in (values[:1], values[1:8], values[8:])]
    torch.testing.assert_close(sum(parts), resampled_sums(values, 33, seeded()))


def test_columns_share_their_weights() -> None:
    values = torch.rand(30, 1)
    both = resampled_sums(torch.cat([values, 2 * values], 1), 50, seeded())
    torch.testing.assert_close(2 * both[:, 0], both[:, 1])


def test_interval_of_a_ratio_covers_the_truth_as_often_as_it_says() -> None:
    generator = seeded(1)
    covered = []
    for _ in range(200):
        lengths = torch.rand(150, generator=generator, dtype=torch.float64) + 0.5
        tokens = lengths * (0.3 + 0.1 * torch.randn(150, generator=generator, dtype=torch.float64))
        sums = resampled_sums(torch.stack([tokens, lengths], 1), 300, generator)
        interval = ratio_interval(sums[:, 0], sums[:, 1])
        assert interval is not None
        covered.append(interval[0] <= 0.3 <= interval[1])
    assert 0.90 <= sum(covered) / len(covered) <= 0.985


def test_rows_that_are_alike_leave_no_doubt() -> None:
    sums = resampled_sums(torch.tensor([[2.0, 5.0]]).repeat(40, 1), 100, seeded())
    assert ratio_interval(sums[:, 0], sums[:, 1]) == pytest.approx((0.4, 0.4))


def test_resamples_that_drew_no_row_are_left_out() -> None:
    sums = resampled_sums(torch.tensor([[2.0, 5.0], [2.0, 5.0]]), 200, seeded())
    assert bool((sums[:, 1] == 0).any())
    assert ratio_interval(sums[:, 0], sums[:, 1]) == pytest.approx((0.4, 0.4))


@pytest.mark.parametrize("sums", [torch.zeros(0), torch.zeros(100), torch.ones(19)])
def test_too_few_resamples_give_no_interval(sums: Tensor) -> None:
    assert ratio_interval(sums, sums) is None


def test_a_level_beyond_one_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        ratio_interval(torch.ones(50), torch.ones(50), level=95)
