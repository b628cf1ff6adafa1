"""Rows looked at in blocks: against the plain computation on the whole matrix."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_vocab.contract import row_values
from lightning_vocab.contract.row_values import (
    is_unfit,
    largest_change,
    norms_of,
    repeated_rows,
    unfinite_ids,
)

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_values, "_BLOCK", 3)


@given(values=st.lists(st.integers(0, 3), min_size=4, max_size=12), data=st.data())
def test_repeated_rows_are_those_that_equal_another(values: list[int], data: st.DataObject) -> None:
    # Rows that share all numbers but one, so that only the whole row tells them apart.
    rows = torch.ones(len(values), 4)
    rows[:, 2] = torch.tensor(values, dtype=torch.float32) * 1e-3
    ids = sorted(data.draw(st.sets(st.integers(0, len(values) - 1), min_size=1)))
    old = [id for id in range(len(values)) if id not in ids]
    rows = rows.to(data.draw(st.sampled_from(DTYPES)))
    expected = [id for id in ids if values.count(values[id]) > 1]
    assert repeated_rows(rows, ids, old) == expected


def test_old_rows_that_equal_each_other_are_not_new_ones() -> None:
    assert repeated_rows(torch.tensor([[1.0], [1.0], [2.0]]), [2], [0, 1]) == []


def test_rows_of_one_sum_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        row_values, "_sums", lambda rows, ids: iter([torch.zeros(len(ids), dtype=torch.long)])
    )
    rows = torch.tensor([[1.0], [2.0], [3.0]])
    assert repeated_rows(rows, [0, 1, 2], []) == []


@pytest.mark.parametrize("width", [1, 2], ids=["bias", "matrix"])
def test_rows_that_are_not_finite_are_found_in_every_block(width: int) -> None:
    values = torch.zeros(8, 2) if width == 2 else torch.zeros(8)
    values[1] = torch.nan
    values.flatten()[-1] = -torch.inf
    assert unfinite_ids(values) == [1, 7]


def test_the_largest_change_of_the_rows_asked_for() -> None:
    before = torch.zeros(7, 2)
    now = before.clone()
    now[2, 1], now[5, 0], now[6, 0] = 0.5, -2.0, 9.0
    assert largest_change(now, before, torch.arange(6)) == (2, 2.0)
    assert largest_change(before, before, torch.arange(7)) == (0, 0.0)


def test_a_change_below_the_precision_of_the_rows_is_none() -> None:
    before = torch.tensor([[1.0 + 2**-20]])
    assert largest_change(before.bfloat16(), before, torch.arange(1)) == (0, 0.0)


def test_norms_leave_out_zero_rows_of_the_base() -> None:
    rows = torch.tensor([[0.0], [1.0], [2.0], [3.0], [2.5], [13.0], [0.2]])
    norms = norms_of(rows, [4, 5, 6], [0, 1, 2, 3])
    assert (norms.least, norms.greatest) == (1.0, 3.0)
    assert norms.outside() == [5, 6]
    assert is_unfit(norms)


@pytest.mark.parametrize(
    ("norm", "is_far"), [(0.26, False), (0.24, True), (11.9, False), (12.1, True)]
)
def test_a_norm_is_unfit_at_four_times_the_usual(norm: float, is_far: bool) -> None:
    rows = torch.tensor([[1.0], [3.0], [norm]])
    assert is_unfit(norms_of(rows, [2], [0, 1])) is is_far
