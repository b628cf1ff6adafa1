"""Item 12: which equal rows are a fault, and which rows a finding names."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from lightning_vocab.contract import Finding
from lightning_vocab.vocabulary.wording import counted
from tests.contract import faults
from tests.contract.cases import Case

pytestmark = pytest.mark.parametrize("shipped", ["tied"], indirect=True)


def of_the_new_rows(case: Case, status: str) -> list[Finding]:
    return [f for f in case.findings() if f.name == "new rows" and f.status == status]


def with_pieces(case: Case, pieces: dict[int, tuple[int, ...]]) -> None:
    """Other pieces for some new tokens, as the manifest says them."""
    assert case.expansion is not None
    tokens: Any = (
        replace(each, pieces=pieces.get(each.id, each.pieces)) for each in case.expansion.tokens
    )
    case.expansion = replace(case.expansion, tokens=tuple(tokens))


def make_equal(case: Case, id: int, other: int) -> None:
    with torch.no_grad():
        (rows,) = faults.matrices(case)
        rows[id] = rows[other].clone()


@pytest.mark.slow
def test_rows_of_equal_pieces_are_no_finding_before_training(clean: Case) -> None:
    clean.inputs["stage"] = "start"
    with_pieces(clean, {305: (40, 41), 306: (40, 40, 41, 41), 307: (50, 50)})
    make_equal(clean, 306, 305)
    make_equal(clean, 307, 50)
    assert of_the_new_rows(clean, "warn") == of_the_new_rows(clean, "fail") == []
    assert "3 of equal pieces alike" in of_the_new_rows(clean, "pass")[-1].found


@pytest.mark.slow
def test_rows_of_other_pieces_are_a_warning_before_training(clean: Case) -> None:
    clean.inputs["stage"] = "start"
    with_pieces(clean, {305: (40, 41), 306: (40, 41, 41)})
    make_equal(clean, 306, 305)
    (found,) = of_the_new_rows(clean, "warn")
    assert found.found.startswith("equal to another row: 2 new input rows of 9")


@pytest.mark.parametrize(("few", "status"), [(0.3, "warn"), (0.2, "fail")])
def test_equal_rows_after_training_are_a_warning_where_they_are_few(
    clean: Case, few: float, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_vocab.contract.new_rows._FEW", few)  # of nine rows
    with_pieces(clean, {305: (40, 41), 306: (40, 41)})
    make_equal(clean, 306, 305)
    (found,) = of_the_new_rows(clean, status)
    assert "2 new input rows of 9" in found.found
    assert "min_frequency" in found.remedy


def test_equal_rows_of_other_pieces_fail_after_training_however_few(
    clean: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_vocab.contract.new_rows._FEW", 1.0)
    with_pieces(clean, {305: (40, 41), 306: (40, 42)})
    make_equal(clean, 306, 305)
    assert "2 new input rows of 9" in of_the_new_rows(clean, "fail")[0].found
    clean.expansion = None
    assert "2 new input rows of 9" in of_the_new_rows(clean, "warn")[0].found


def test_a_row_that_equals_an_old_one_by_its_pieces_may_be_one_of_few(
    clean: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_vocab.contract.new_rows._FEW", 0.2)
    with_pieces(clean, {307: (50, 50)})
    make_equal(clean, 307, 50)
    assert "1 new input row of 9" in of_the_new_rows(clean, "warn")[0].found
    make_equal(clean, 307, 51)
    (found,) = of_the_new_rows(clean, "fail")
    assert "row of an old token: 1 new input row," in found.found


def test_a_row_that_is_nan_is_no_matter_of_norm(clean: Case) -> None:
    other = copy.deepcopy(clean)
    faults.nan_in_a_row(clean, None)  # type: ignore[arg-type]  # no file is written
    (found,) = of_the_new_rows(clean, "fail")
    assert found.found.startswith("nan or infinite: 1 input row, such as ")
    with torch.no_grad():
        faults.matrices(other)[0][305] *= 1.01 * 4
        faults.matrices(other)[0][306] *= 50
    (found,) = of_the_new_rows(other, "fail")
    assert other.expansion is not None
    farthest = next(each.token for each in other.expansion.tokens if each.id == 306)
    assert f"such as {farthest!r}" in found.found


def test_an_old_row_that_became_nan_is_said_to_be_so(clean: Case) -> None:
    with torch.no_grad():
        faults.matrices(clean)[0][7] = torch.nan
    (found,) = (f for f in clean.findings() if f.name == "old rows")
    assert "1 of 304 rows, to numbers that are not finite" in found.found


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 biases"), (1, "1 bias"), (2000, "2,000 biases")]
)
def test_nouns_follow_their_number(number: int, said: str, shipped: Any) -> None:
    assert counted(number, "bias") == said
