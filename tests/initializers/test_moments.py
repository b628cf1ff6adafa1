from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_vocab.initializers import moments
from lightning_vocab.initializers.moments import (
    covariance,
    gram_matrix,
    mean_row,
    row_norms,
    standard_deviation,
)

IDS = torch.tensor([0, 2, 3, 4, 6, 7, 8])
DIM = 5


@pytest.fixture(params=[3, 8192], ids=["three chunks", "one chunk"])
def rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    monkeypatch.setattr(moments, "_CHUNK_ROWS", request.param)
    return torch.randn(10, DIM) + 3


def test_mean_of_the_chosen_rows(rows: Tensor) -> None:
    assert torch.allclose(mean_row(rows, IDS), rows[IDS].double().mean(0).float())


def test_covariance_of_the_chosen_rows(rows: Tensor) -> None:
    expected = torch.cov(rows[IDS].double().T, correction=0).float()
    assert torch.allclose(covariance(rows, IDS), expected, atol=1e-5)


@pytest.mark.parametrize("columns", [1, 2, 3, DIM])
def test_blocks_of_columns_make_up_the_whole_covariance(
    columns: int, rows: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moments, "_BLOCK_COLUMNS", columns)
    expected = torch.cov(rows[IDS].double().T, correction=0).float()
    made = covariance(rows, IDS)
    assert torch.allclose(made, expected, atol=1e-5)
    assert torch.equal(made, made.T)


def test_products_of_half_precision_rows_in_float64(rows: Tensor) -> None:
    rows = rows.half()
    expected = rows[IDS].double().T @ rows[IDS].double()
    made = gram_matrix(rows, IDS, torch.float64)
    torch.testing.assert_close(made, expected)


def test_standard_deviation_of_all_entries(rows: Tensor) -> None:
    expected = rows[IDS].double().std(correction=0).float()
    assert torch.allclose(standard_deviation(rows, IDS), expected)


def test_norms_of_the_chosen_rows(rows: Tensor) -> None:
    assert torch.allclose(row_norms(rows, IDS), rows[IDS].square().sum(1).sqrt())


def test_half_precision_is_summed_in_float32() -> None:
    rows = torch.ones(1000, 1, dtype=torch.bfloat16)  # a bfloat16 sum of ones stops at 256
    mean = mean_row(rows, torch.arange(1000))
    assert mean.dtype == torch.float32
    assert mean.tolist() == [1.0]
