from __future__ import annotations

import math
from importlib import import_module

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightning_vocab.functional.representation_similarity import (
    average_ranks,
    representation_similarity,
)

MODULE = import_module("lightning_vocab.functional.representation_similarity")


def naive_cosines(rows: list[list[float]]) -> list[float]:
    """Cosines of all pairs by the schoolbook, rounded as ties need."""
    norms = [math.sqrt(sum(x * x for x in row)) for row in rows]
    return [
        round(sum(a * b for a, b in zip(rows[i], rows[j], strict=True)) / norms[i] / norms[j], 11)
        for i in range(len(rows))
        for j in range(i + 1, len(rows))
    ]


def naive_pearson(one: list[float], other: list[float]) -> float:
    mean_one, mean_other = sum(one) / len(one), sum(other) / len(other)
    pairs = [(a - mean_one, b - mean_other) for a, b in zip(one, other, strict=True)]
    spread = sum(a * a for a, _ in pairs) * sum(b * b for _, b in pairs)
    return sum(a * b for a, b in pairs) / math.sqrt(spread)


def naive_ranks(values: list[float]) -> list[float]:
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2
        for value in values
    ]


def naive(rows: Tensor, reference: Tensor) -> tuple[float, float]:
    one, other = naive_cosines(rows.tolist()), naive_cosines(reference.tolist())
    return naive_pearson(one, other), naive_pearson(naive_ranks(one), naive_ranks(other))


def drawn(num_rows: int, dim: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_rows, dim, generator=generator, dtype=torch.float64)


def rotation(dim: int, seed: int) -> Tensor:
    turned: Tensor = torch.linalg.qr(drawn(dim, dim, seed))[0]
    return turned


@pytest.mark.parametrize("block", [1, 4, 1024])
def test_it_equals_the_schoolbook_computation(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "_BLOCK", block)
    rows, reference = drawn(13, 5, seed=1), drawn(13, 3, seed=2)
    found = representation_similarity(rows, reference)
    assert found[:2] == pytest.approx(naive(rows, reference), abs=1e-9)
    assert found.num_rows == 13


def test_ties_share_their_mean_rank_in_both_spaces() -> None:
    rows = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 2], [1, 1], [-1, 0]], dtype=torch.float64)
    reference = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 3], [1, 1], [1, 2]]).double()
    found = representation_similarity(rows, reference)
    assert found[:2] == pytest.approx(naive(rows, reference), abs=1e-9)


def test_three_rows_by_hand() -> None:
    # Cosines 1-2, 1-3, 2-3: (0, 0.6, 0.8) and (0.8, 0.6, 0). The deviations from the means 7/15 are
    # (-7, 2, 5) / 15 and (5, 2, -7) / 15: r = (-35 + 4 - 35) / (49 + 4 + 25); the ranks reverse.
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    reference = torch.tensor([[0.8, 0.6], [1.0, 0.0], [0.0, 1.0]])
    found = representation_similarity(rows, reference)
    assert found.pearson == pytest.approx(-66 / 78, abs=1e-6)
    assert found.spearman == pytest.approx(-1.0)
    assert found.num_rows == 3


@given(st.integers(0, 10**6), st.integers(4, 20), st.floats(0.01, 100.0))
def test_a_turned_and_scaled_space_is_the_same_space(seed: int, size: int, scale: float) -> None:
    rows = drawn(size, 4, seed)
    found = representation_similarity(rows, scale * rows @ rotation(4, seed + 1))
    assert found[:2] == pytest.approx((1.0, 1.0), abs=1e-6)


@given(st.integers(0, 10**6), st.permutations(range(9)))
def test_the_order_of_the_rows_does_not_matter(seed: int, order: list[int]) -> None:
    rows, reference = drawn(9, 4, seed), drawn(9, 6, seed + 1)
    found = representation_similarity(rows, reference)
    again = representation_similarity(rows[order], reference[order])
    assert again[:2] == pytest.approx(found[:2], abs=1e-9)


def test_the_two_spaces_may_change_places() -> None:
    rows, reference = drawn(9, 4, seed=3), drawn(9, 6, seed=4)
    found, swapped = (
        representation_similarity(*pair) for pair in ((rows, reference), (reference, rows))
    )
    assert swapped == pytest.approx(found)


@pytest.mark.parametrize("seed", range(3))
def test_unrelated_spaces_have_a_similarity_near_zero(seed: int) -> None:
    found = representation_similarity(drawn(300, 8, seed), drawn(300, 8, seed + 10))
    assert abs(found.pearson) < 0.05
    assert abs(found.spearman) < 0.05


def test_identical_rows_have_no_structure_to_compare() -> None:
    same = torch.full((50, 7), 0.3).mul(torch.linspace(1, 2, 50).unsqueeze(1))  # by rounding alone
    found = representation_similarity(same, drawn(50, 4, seed=1))
    assert math.isnan(found.pearson)
    assert math.isnan(found.spearman)
    assert found.num_rows == 50


def test_a_zero_row_is_left_out_in_both_spaces() -> None:
    rows, reference = drawn(8, 4, seed=1), drawn(8, 4, seed=2)
    whole = representation_similarity(rows[2:], reference[2:])
    rows[0], reference[1] = 0, 0
    found = representation_similarity(rows, reference)
    assert found.num_rows == 6
    assert found == pytest.approx(whole)


def test_tiny_and_huge_rows_have_a_direction() -> None:
    rows, reference = drawn(8, 4, seed=1), drawn(8, 4, seed=2)
    scales = torch.logspace(-250, 250, 8, dtype=torch.float64).unsqueeze(1)
    found = representation_similarity(rows * scales, reference)
    assert found == pytest.approx(representation_similarity(rows, reference))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_value_that_is_not_finite_gives_nan(value: float) -> None:
    rows = drawn(6, 4, seed=1)
    rows[2, 1] = value
    assert math.isnan(representation_similarity(rows, drawn(6, 4, seed=2)).pearson)
    assert math.isnan(representation_similarity(drawn(6, 4, seed=2), rows).spearman)


def test_two_rows_are_too_few() -> None:
    found = representation_similarity(drawn(2, 4, seed=1), drawn(2, 4, seed=2))
    assert math.isnan(found.pearson)
    assert found.num_rows == 2


def test_a_sample_of_many_rows_is_the_same_for_a_seed_and_says_its_size() -> None:
    rows, reference = drawn(60, 4, seed=1), drawn(60, 4, seed=2)
    found, again, other = (
        representation_similarity(rows, reference, max_rows=20, seed=seed) for seed in (5, 5, 6)
    )
    assert found.num_rows == 20
    assert found == again
    assert found != other
    assert representation_similarity(rows, reference, max_rows=None).num_rows == 60


def test_a_sampled_row_is_compared_with_its_own_reference() -> None:
    rows = drawn(60, 4, seed=1)
    found = representation_similarity(rows, rows @ rotation(4, 2), max_rows=20)
    assert found[:2] == pytest.approx((1.0, 1.0))


def test_half_precision_is_compared_in_float64() -> None:
    rows, reference = drawn(9, 4, seed=1).bfloat16(), drawn(9, 4, seed=2)
    found = representation_similarity(rows, reference)
    assert found == pytest.approx(representation_similarity(rows.double(), reference))


@pytest.mark.parametrize("shape", [(4, 3), (5,), (5, 3, 1)])
def test_spaces_of_different_tokens_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"equally many rows, got \(5, 3\) and"):
        representation_similarity(torch.ones(5, 3), torch.ones(shape))


def test_a_sample_of_two_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="max_rows=2"):
        representation_similarity(torch.ones(5, 3), torch.ones(5, 3), max_rows=2)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12))
def test_ranks_are_those_of_counting(values: list[int]) -> None:
    found = average_ranks(torch.tensor(values, dtype=torch.float64)).tolist()
    assert found == naive_ranks([float(value) for value in values])
