from __future__ import annotations

from typing import Any

import numpy
import pytest

from lightning_vocab.distillation.reservoir import SNIPPET
from lightning_vocab.distillation.rows import CollateSnippets, SnippetRows
from lightning_vocab.vocabulary import VocabularyExpansion
from lightning_vocab.vocabulary.pieces import PieceTable
from tests.distillation.conftest import make_expansion, make_stream

EXPANSION = make_expansion((1, 2), (1, 2, 3))  # 10 -> 1 2, 11 -> 1 2 3
START = 7


def make_rows(*documents: list[int], held: tuple[int, ...] = ()) -> SnippetRows:
    stream = make_stream(documents)
    starts = numpy.cumsum([0, *map(len, documents)])
    rows = [(0, len(ids), start, 0.5) for ids, start in zip(documents, starts, strict=False)]
    return SnippetRows(
        stream,
        numpy.array(rows, SNIPPET),
        start=START,
        taught=table(EXPANSION, lambda id: id not in held),
        held=table(EXPANSION, lambda id: id in held),
    )


def table(expansion: VocabularyExpansion, wanted: Any) -> PieceTable:
    return PieceTable([t for t in expansion.tokens if wanted(t.id)], expansion.num_rows)


def test_student_and_teacher_are_aligned_from_the_first_new_token_on() -> None:
    row = make_rows([5, 11, 6, 10, 4])[0]
    assert row["input_ids"].tolist() == [START, 5, 11, 6, 10, 4]
    assert row["teacher_ids"].tolist() == [START, 5, 1, 2, 3, 6, 1, 2, 4]
    #               the last piece of 11 is at 4, that of 10 at 7
    assert row["teacher_positions"].tolist() == [-100, -100, 4, 5, 7, 8]


def test_both_read_the_pieces_of_a_held_token() -> None:
    row = make_rows([11, 6, 10], held=(11,))[0]
    assert row["input_ids"].tolist() == [START, 1, 2, 3, 6, 10]
    assert row["teacher_ids"].tolist() == [START, 1, 2, 3, 6, 1, 2]
    assert row["teacher_positions"].tolist() == [-100, -100, -100, -100, -100, 6]


def test_a_batch_is_padded_for_student_and_teacher_apart() -> None:
    rows = make_rows([10, 4, 4], [11])
    batch = CollateSnippets(pad=8, teacher_pad=9)([rows[0], rows[1]])
    assert {name: value.tolist() for name, value in batch.items()} == {
        "input_ids": [[START, 10, 4, 4], [START, 11, 8, 8]],
        "attention_mask": [[1, 1, 1, 1], [1, 1, 0, 0]],
        "labels": [[-100, 10, 4, 4], [-100, 11, -100, -100]],
        "teacher_positions": [[-100, 2, 3, 4], [-100, 3, -100, -100]],
        "teacher_ids": [[START, 1, 2, 4, 4], [START, 1, 2, 3, 9]],
        "teacher_mask": [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]],
    }


def test_there_are_as_many_rows_as_snippets() -> None:
    rows = make_rows([10], [11])
    assert len(rows) == 2
    with pytest.raises(IndexError, match="Snippet 2 of 2"):
        rows[2]
