from __future__ import annotations

import math

import pytest
import torch

from lightning_vocab.functional.renyi import renyi_efficiency


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.5])
def test_even_use_of_the_whole_vocabulary_is_one(alpha: float) -> None:
    assert renyi_efficiency(torch.full((7,), 3), 7, alpha) == pytest.approx(1.0)


def test_value_is_the_formula() -> None:
    p = [0.5, 0.3, 0.2]
    entropy = math.log(sum(each**2.5 for each in p)) / (1 - 2.5)
    found = renyi_efficiency(torch.tensor([5, 0, 3, 2]), num_types=4)
    assert found == pytest.approx(entropy / math.log(4))


def test_order_one_is_shannon_entropy_and_the_limit() -> None:
    counts = torch.tensor([5, 3, 2])
    shannon = -sum(p * math.log(p) for p in (0.5, 0.3, 0.2)) / math.log(3)
    assert renyi_efficiency(counts, 3, 1.0) == pytest.approx(shannon)
    assert renyi_efficiency(counts, 3, 1.0 + 1e-6) == pytest.approx(shannon, abs=1e-5)


def test_one_token_alone_is_zero() -> None:
    assert renyi_efficiency(torch.tensor([9, 0]), 2) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("counts", "num_types", "alpha"), [([0], 5, 2.5), ([1], 1, 2.5), ([1], 5, 0.0)]
)
def test_what_has_no_efficiency_is_refused(counts: list[int], num_types: int, alpha: float) -> None:
    with pytest.raises(ValueError, match="at least"):
        renyi_efficiency(torch.tensor(counts), num_types, alpha)
