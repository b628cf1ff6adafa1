from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lightning_vocab.probing.ranking import FEWEST_DOCUMENTS, rank

LABELS = ("first", "second", "third")


def seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noisy_nats(num_documents: int = 60, num_repeats: int = 3) -> tuple[Tensor, Tensor]:
    """Two initializers that are equal but for noise, and one that is worse by half."""
    num_bytes = torch.randint(50, 500, (num_documents,), generator=seeded())
    hardness = num_bytes * (1 + torch.rand(num_documents, generator=seeded(6)))
    noise = 0.02 * torch.randn(3, num_repeats, num_documents, generator=seeded(7))
    return hardness * (torch.tensor([1.5, 1.0, 1.0])[:, None, None] + noise), num_bytes


def test_bits_per_byte_is_the_mean_over_the_repeats_of_all_documents_together() -> None:
    nats = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[9.0, 9.0], [9.0, 9.0]]])
    best, other = rank(["a", "b"], nats, torch.tensor([1, 4]))
    assert best.bits_per_byte == pytest.approx((3 + 7) / 2 / 5 / math.log(2))
    assert other.bits_per_byte == pytest.approx(18 / 5 / math.log(2))
    assert other.difference == pytest.approx(other.bits_per_byte - best.bits_per_byte)


def test_what_is_equal_differs_by_exactly_nothing_and_that_is_noise() -> None:
    nats, num_bytes = noisy_nats()
    same = torch.stack([nats[1], nats[1], nats[0]])
    first, second, third = rank(LABELS, same, num_bytes)
    assert (first.label, second.label, third.label) == LABELS  # equal ones stay in their order
    assert (second.difference, second.interval, second.verdict) == (0.0, (0.0, 0.0), "noise")
    assert third.verdict == "worse"


def test_a_clear_difference_is_worse_and_a_small_one_noise() -> None:
    found = {each.label: each for each in rank(LABELS, *noisy_nats())}
    assert found["first"].verdict == "worse"
    assert {found["second"].verdict, found["third"].verdict} == {"best", "noise"}
    low, high = found["first"].interval or (0.0, 0.0)
    assert 0 < low < found["first"].difference < high


def test_pairing_sees_a_difference_far_below_the_spread_of_documents() -> None:
    num_bytes = torch.full((40,), 100)
    hard = 1000 * torch.rand(40, generator=seeded())
    nats = torch.stack([hard, hard + 1 + 0.1 * torch.randn(40, generator=seeded(1))])
    _, other = rank(["a", "b"], nats.unsqueeze(1), num_bytes)
    assert other.verdict == "worse"


def test_repeats_widen_the_interval_like_a_mean_of_them() -> None:
    spread = torch.randn(30, generator=seeded())
    nats = torch.zeros(2, 30, 20)
    nats[1] = 100 + spread[:, None]  # documents all alike: only the repeats differ
    _, other = rank(["a", "b"], nats, torch.full((20,), 10))
    assert other.interval is not None
    width = other.interval[1] - other.interval[0]
    expected = 2 * 1.96 * float(spread.std()) / math.sqrt(30) / 10 / math.log(2)
    assert width == pytest.approx(expected, rel=0.1)


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    num_bytes, held = torch.full((50,), 10), 0
    for seed in range(100):
        of_repeat = torch.randn(2, 12, 1, generator=seeded(seed))
        nats = 50 + of_repeat + 4 * torch.randn(2, 12, 50, generator=seeded(1000 + seed))
        _, other = rank(["a", "b"], nats, num_bytes)
        assert other.interval is not None
        held += other.verdict == "noise"  # the two are equal in truth
    assert 88 <= held <= 99


def test_of_a_handful_of_documents_nothing_is_concluded() -> None:
    nats, num_bytes = noisy_nats(FEWEST_DOCUMENTS - 1)
    assert [each.verdict for each in rank(LABELS, nats, num_bytes)] == ["best", "noise", "noise"]
    assert {each.interval for each in rank(LABELS, nats, num_bytes)} == {None}


def test_the_same_scores_give_the_same_intervals() -> None:
    assert rank(LABELS, *noisy_nats()) == rank(LABELS, *noisy_nats())


@pytest.mark.parametrize("shape", [(2, 1, 4), (3, 1, 5), (3, 4), (3, 0, 4)])
def test_shapes_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="Expected nats of 3 initializers"):
        rank(LABELS, torch.ones(shape), torch.ones(4))
