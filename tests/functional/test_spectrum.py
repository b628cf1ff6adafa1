from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_vocab.functional import (
    effective_rank,
    mean_pairwise_cosine,
    participation_ratio,
    row_norms,
    singular_values,
    stable_rank,
    top1_share,
)

RANKS = (effective_rank, stable_rank, participation_ratio)


def orthogonal(size: int) -> Tensor:
    q: Tensor = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64)).Q
    return q


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (5, 5), (1, 6), (6, 1)])
def test_singular_values_equal_those_of_torch(shape: tuple[int, int]) -> None:
    rows = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(singular_values(rows), torch.linalg.svdvals(rows))


@pytest.mark.parametrize("shape", [(9, 4), (4, 9)])
def test_singular_values_do_not_depend_on_the_block(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_vocab.functional.spectrum._BLOCK", 2)
    rows = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(singular_values(rows), torch.linalg.svdvals(rows))


@pytest.mark.parametrize("measure", RANKS)
def test_orthogonal_rows_have_full_rank(measure: Callable[[Tensor], Tensor]) -> None:
    assert measure(singular_values(3 * orthogonal(7))).item() == pytest.approx(7.0)


@pytest.mark.parametrize("measure", RANKS)
def test_rank_one_rows_have_rank_one(measure: Callable[[Tensor], Tensor]) -> None:
    rows = torch.outer(torch.randn(50), torch.randn(20)).double()
    assert measure(singular_values(rows)).item() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("measure", [*RANKS, top1_share])
def test_a_single_row_gives_one(measure: Callable[[Tensor], Tensor]) -> None:
    assert measure(singular_values(torch.tensor([[3.0, 4.0]]))).item() == pytest.approx(1.0)


@pytest.mark.parametrize("measure", [*RANKS, top1_share])
def test_zero_rows_give_zero(measure: Callable[[Tensor], Tensor]) -> None:
    assert measure(singular_values(torch.zeros(3, 2))).item() == 0.0


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        # Singular values 3, 1: shares 3/4, 1/4.
        (effective_rank, math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))),
        (stable_rank, 10 / 9),
        (participation_ratio, 100 / 82),
        (top1_share, 3 / 4),
    ],
)
def test_measures_of_a_diagonal_matrix_follow_by_hand(
    measure: Callable[[Tensor], Tensor], expected: float
) -> None:
    rows = torch.tensor([[1.0, 0.0, 0.0], [0.0, -3.0, 0.0]])
    assert measure(singular_values(rows)).item() == pytest.approx(expected)


@pytest.mark.parametrize("measure", [*RANKS, top1_share])
def test_rows_that_are_not_finite_give_nan(measure: Callable[[Tensor], Tensor]) -> None:
    rows = torch.tensor([[1.0, torch.inf], [2.0, 0.0]])
    assert measure(singular_values(rows)).isnan()


def test_mean_pairwise_cosine_equals_the_mean_of_all_pairs() -> None:
    rows = torch.randn(12, 5, dtype=torch.float64)
    pairs = [F.cosine_similarity(rows[i], rows[j], dim=0) for i in range(12) for j in range(i)]
    assert mean_pairwise_cosine(rows).item() == pytest.approx(torch.stack(pairs).mean().item())


def test_mean_pairwise_cosine_does_not_depend_on_the_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = torch.randn(12, 5, dtype=torch.float64)
    whole = mean_pairwise_cosine(rows)
    monkeypatch.setattr("lightning_vocab.functional.spectrum._BLOCK", 5)
    torch.testing.assert_close(mean_pairwise_cosine(rows), whole)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[1.0, 0.0], [0.0, 2.0]], 0.0),
        ([[1.0, 0.0], [5.0, 0.0], [2.0, 0.0]], 1.0),
        ([[1.0, 0.0], [-2.0, 0.0]], -1.0),
        ([[1.0, 0.0], [0.0, 0.0], [3.0, 3.0]], math.sqrt(0.5)),  # the zero row is left out
    ],
)
def test_mean_pairwise_cosine_follows_by_hand(rows: list[list[float]], expected: float) -> None:
    assert mean_pairwise_cosine(torch.tensor(rows)).item() == pytest.approx(expected)


@pytest.mark.parametrize("rows", [[[1.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]]])
def test_mean_pairwise_cosine_without_a_pair_is_nan(rows: list[list[float]]) -> None:
    assert mean_pairwise_cosine(torch.tensor(rows)).isnan()


def test_row_norms_follow_by_hand() -> None:
    norms = row_norms(torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 1.0], [2.0, 0.0]]))
    assert [value.item() for value in norms] == pytest.approx([0.0, 1.5, 2.0, 5.0])


@pytest.mark.parametrize("measure", [singular_values, mean_pairwise_cosine, row_norms])
@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (4,)])
def test_a_matrix_without_rows_or_columns_is_refused(
    measure: Callable[[Tensor], object], shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        measure(torch.zeros(shape))
