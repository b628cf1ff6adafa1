"""Rows looked at in blocks: against the plain computation on the whole matrix."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_vocab.contract import row_values
from lightning_vocab.contract.row_values import (
    equal_rows,
    largest_change,
    norms_of,
    unfinite_ids,
)

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_values, "_BLOCK", 3)


@given(values=st.lists(st.integers(0, 3), min_size=4, max_size=12), data=st.data())
def test_equal_rows_are_grouped_where_a_new_one_is_among_them(
    values: list[int], data: st.DataObject
) -> None:
    # Rows that share all numbers but one, so that only the whole row tells them apart.
    rows = torch.ones(len(values), 4)
    rows[:, 2] = torch.tensor(values, dtype=torch.float32) * 1e-3
    ids = sorted(data.draw(st.sets(st.integers(0, len(values) - 1), min_size=1)))
    old = [id for id in range(len(values)) if id not in ids]
    rows = rows.to(data.draw(st.sampled_from(DTYPES)))
    groups = [[id for id, each in enumerate(values) if each == value] for value in set(values)]
    expected = [group for group in groups if len(group) > 1 and not set(ids).isdisjoint(group)]
    assert sorted(equal_rows(rows, ids, old)) == sorted(expected)


def test_old_rows_that_equal_each_other_are_not_new_ones() -> None:
    assert equal_rows(torch.tensor([[1.0], [1.0], [2.0]]), [2], [0, 1]) == []


def test_rows_of_one_sum_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        row_values, "_sums", lambda rows, ids: iter([torch.zeros(len(ids), dtype=torch.long)])
    )
    rows = torch.tensor([[1.0], [2.0], [3.0]])
    assert equal_rows(rows, [0, 1, 2], []) == []
    assert equal_rows(rows[:1], [0], []) == []


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


def test_a_row_that_became_nan_has_changed_by_nan_and_one_that_was_has_not() -> None:
    before = torch.zeros(7, 2)
    before[1, 0] = torch.nan
    now = before.clone()
    assert largest_change(now, before, torch.arange(7)) == (0, 0.0)
    now[0, 0], now[2, 1], now[6, 0] = 3.0, torch.nan, 1.0
    count, change = largest_change(now, before, torch.arange(7))
    assert count == 3
    assert math.isnan(change)


def test_a_change_below_the_precision_of_the_rows_is_none() -> None:
    before = torch.tensor([[1.0 + 2**-20]])
    assert largest_change(before.bfloat16(), before, torch.arange(1)) == (0, 0.0)


def test_norms_leave_out_zero_rows_of_the_base() -> None:
    rows = torch.tensor([[0.0], [1.0], [2.0], [3.0], [2.5], [13.0], [0.2]])
    norms = norms_of(rows, [4, 5, 6], [0, 1, 2, 3])
    assert (norms.least, norms.greatest) == (1.0, 3.0)
    assert norms.outside() == [6, 5]  # a fifth of the least, 4.3 times the greatest
    assert norms.far() == [6, 5]


@pytest.mark.parametrize(
    ("norm", "is_far"), [(0.26, False), (0.24, True), (11.9, False), (12.1, True)]
)
def test_a_norm_is_unfit_at_four_times_the_usual(norm: float, is_far: bool) -> None:
    rows = torch.tensor([[1.0], [3.0], [norm]])
    assert norms_of(rows, [2], [0, 1]).far() == [2] * is_far


def test_far_norms_are_named_from_the_farthest_and_others_are_not() -> None:
    rows = torch.tensor([[1.0], [3.0], [3.5], [15.0], [0.0], [60.0]])
    norms = norms_of(rows, [2, 3, 4, 5], [0, 1])
    assert norms.far() == [4, 5, 3]
    assert norms.outside() == [4, 5, 3, 2]
