"""Snippets as the student and the teacher read them, and batches of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import override

from lightning_vocab.data.rows import IGNORED, Collate, Row
from lightning_vocab.distillation.stream import TokenStream
from lightning_vocab.vocabulary.pieces import PieceTable


class SnippetRow(TypedDict):
    """One snippet, read twice.

    Args:
        input_ids: What the student reads, ``(time,)``.
        teacher_ids: What the teacher reads: base ids alone, ``(teacher_time,)``.
        teacher_positions: The position of the teacher that has read as much as each position of the
            student, `IGNORED` in front of the first new token, ``(time,)``.
    """

    input_ids: NDArray[numpy.int64]
    teacher_ids: NDArray[numpy.int64]
    teacher_positions: NDArray[numpy.int64]


class SnippetRows(Dataset[SnippetRow]):
    """Snippets with the start token in front.

    Student and teacher read the same up to the first new token, so a causal model has the same
    states there; these positions do not count.

    Args:
        stream: The corpus.
        rows: The snippets, of the type `SNIPPET`.
        start: The start token.
        taught: Pieces of the tokens that are taught: the student reads the token, the teacher its
            pieces.
        held: Pieces of the tokens that are not: student and teacher read them.
    """

    def __init__(
        self,
        stream: TokenStream,
        rows: NDArray[numpy.void],
        *,
        start: int,
        taught: PieceTable,
        held: PieceTable,
    ) -> None:
        self.stream = stream
        self.rows = rows
        self.start = start
        self.taught = taught
        self.held = held

    def __len__(self) -> int:
        return len(self.rows)

    @override
    def __getitem__(self, index: int) -> SnippetRow:
        if not 0 <= index < len(self):
            raise IndexError(f"Snippet {index} of {len(self)}.")
        row = self.rows[index]
        text = self.stream.read(int(row["start"]), int(row["length"]))
        student, _ = self.held.expand(numpy.concatenate([[self.start], text]))
        teacher, ends = self.taught.expand(student)
        positions = ends - 1
        positions[: numpy.argmax(self.taught.holds(student))] = IGNORED
        return SnippetRow(input_ids=student, teacher_ids=teacher, teacher_positions=positions)


class CollateSnippets:
    """Snippets to a batch of tensors, padded on the right to the longest one.

    Args:
        pad: Id that fills what the student reads.
        teacher_pad: Id that fills what the teacher reads: a base id.
    """

    def __init__(self, pad: int, teacher_pad: int) -> None:
        self._student = Collate(pad)
        self._teacher = Collate(teacher_pad)

    def __call__(self, rows: Sequence[SnippetRow]) -> dict[str, Tensor]:
        """The batch.

        Args:
            rows: The snippets.

        Returns:
            ``input_ids``, ``attention_mask``, ``labels`` and ``teacher_positions``
            ``(batch, time)``; ``teacher_ids`` and ``teacher_mask`` ``(batch, teacher_time)``; all
            int64. Labels are not shifted, and every token but the start token is one.
        """
        batch = self._student([Row(input_ids=row["input_ids"], num_context=1) for row in rows])
        teacher = self._teacher([Row(input_ids=row["teacher_ids"], num_context=1) for row in rows])
        positions = torch.full_like(batch["input_ids"], IGNORED)
        for number, row in enumerate(rows):
            own = torch.from_numpy(row["teacher_positions"])
            positions[number, : len(own)] = own
        return {
            **batch,
            "teacher_positions": positions,
            "teacher_ids": teacher["input_ids"],
            "teacher_mask": teacher["attention_mask"],
        }
