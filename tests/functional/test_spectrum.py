from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_vocab.functional import (
    _gram,
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
    monkeypatch.setattr(_gram, "_BLOCK", 2)
    rows = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(singular_values(rows), torch.linalg.svdvals(rows))


def with_values(values: Tensor, height: int) -> Tensor:
    """Rows of float32 with the given singular values, ``(height, len(values))``."""
    size = len(values)
    left = torch.linalg.qr(torch.randn(height, size, dtype=torch.float64)).Q
    rows: Tensor = (left * values) @ orthogonal(size)
    return rows.float()


def spectra(n: int = 40, height: int = 90) -> dict[str, Tensor]:
    """Rows of many kinds of spectra, some of which products in float32 cannot resolve."""
    places = torch.arange(n, dtype=torch.float64) / n
    noise, mean = torch.randn(height, n), torch.randn(n)
    signs = torch.randn(height, 1)
    return {
        "random": noise,
        "common mean": noise + 3 * mean,
        "nearly equal": 1e-4 * noise + mean,
        "equal": torch.zeros(height, n) + mean,
        "rank one": signs * mean,
        "nearly rank one": signs * mean + 1e-4 * noise,
        "half of the rows zero": noise * (torch.arange(height) % 2)[:, None],
        "half of the rank": torch.cat([noise[:, : n // 2], noise[:, : n // 2]], dim=1),
        "from 1 to 1e-3": with_values(10 ** (-3 * places), height),
        "from 1 to 1e-6": with_values(10 ** (-6 * places), height),
        "orthogonal": with_values(torch.ones(n, dtype=torch.float64), height),
        "of bfloat16": (noise + mean).bfloat16(),
        "tiny": 1e-25 * noise,  # products in float32 are 0
        "huge": 1e25 * noise,  # products in float32 are infinite
        "one row": noise[:1],
        "zero": torch.zeros(height, n),
    }


@pytest.mark.parametrize("wide", [False, True], ids=["high", "wide"])
@pytest.mark.parametrize("name", list(spectra()))
def test_the_effective_rank_is_that_of_an_svd_in_float64_whatever_the_spectrum(
    name: str, wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_gram, "SINGLE_FROM", 1)
    rows = spectra()[name].T if wide else spectra()[name]
    values = torch.linalg.svdvals(rows.double())
    is_noise = values <= values[0] * math.sqrt(len(values) * torch.finfo(torch.float64).eps)
    expected = effective_rank(values.where(~is_noise, 0.0)).item()
    assert effective_rank(singular_values(rows)).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "dtypes"),
    [
        ("random", [torch.float32]),
        ("nearly equal", [torch.float32]),
        ("from 1 to 1e-6", [torch.float32, torch.float64]),
        ("nearly rank one", [torch.float32, torch.float64]),
    ],
)
def test_products_are_made_in_float64_where_float32_does_not_suffice(
    name: str, dtypes: list[torch.dtype], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[torch.dtype] = []

    def spy(gram: Tensor, block: Tensor) -> None:
        made.append(block.dtype)
        add(gram, block)

    add = _gram._add_gram
    monkeypatch.setattr(_gram, "_add_gram", spy)
    monkeypatch.setattr(_gram, "SINGLE_FROM", 1)
    singular_values(spectra()[name])
    assert made == dtypes


def test_products_that_are_less_than_float32_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def rough(gram: Tensor, block: Tensor) -> None:
        # As a matrix product where TF32 or bfloat16 is allowed.
        block = block.bfloat16() if block.dtype == torch.float32 else block
        gram += block.double().T @ block.double()

    monkeypatch.setattr(_gram, "_add_gram", rough)
    monkeypatch.setattr(_gram, "SINGLE_FROM", 1)
    rows = with_values(torch.linspace(1, 0.02, 40, dtype=torch.float64), 90)
    expected = effective_rank(torch.linalg.svdvals(rows.double())).item()
    assert effective_rank(singular_values(rows)).item() == pytest.approx(expected, rel=1e-6)


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
