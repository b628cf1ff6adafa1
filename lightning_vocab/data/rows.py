"""Rows of tokens as a model reads them, and batches of rows."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NotRequired, TypedDict

import datasets
import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import override

IGNORED = -100
"""Label of a token that is no target, as `torch.nn.functional.cross_entropy` expects it."""


class Row(TypedDict):
    """One row: token ids, leading tokens that are no targets and, to validate on, its bytes.

    A row to validate on also says which document of its source it is a window of.
    """

    input_ids: NDArray[numpy.int64]
    num_context: int
    num_bytes: NotRequired[int]
    document: NotRequired[int]


class PackedRows(Dataset[Row]):
    """One long stream of documents, cut into rows of exactly ``block_size`` tokens.

    The stream is the start token and then every document with its end token, read in place from
    the memory-mapped documents; no copy is made and nothing is lost. Neighbouring rows share one
    token (the first token of a row cannot be a target), and the last row is moved back to end
    where the stream ends, with the tokens that the row before trains on masked: every token but
    the start token is a target exactly once an epoch, and no row needs padding. A stream shorter
    than ``block_size`` is one short row. Attention runs across the documents of a row.

    Args:
        documents: What `tokenise_stream` gave, in the order of the stream.
        block_size: Tokens of a row, at least 2.
        first_id: The start token to put in front, or None where the documents begin with it.
    """

    def __init__(
        self, documents: Sequence[datasets.Dataset], block_size: int, first_id: int | None
    ) -> None:
        self.documents = tuple(documents)
        self.block_size = block_size
        self.first_id = first_id

    def __len__(self) -> int:
        return max(1, -(-(self.num_tokens - 1) // (self.block_size - 1)))

    @override
    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self):
            raise IndexError(f"Row {index} of {len(self)}.")
        context = index * (self.block_size - 1)  # the last token that the rows before train on
        start = max(0, min(context, self.num_tokens - self.block_size))
        ids = self._read(start, min(start + self.block_size, self.num_tokens))
        return Row(input_ids=ids, num_context=context + 1 - start)

    @property
    def num_tokens(self) -> int:
        """Tokens of the stream."""
        return self._ends[-1]

    @cached_property
    def _chunks(self) -> list[NDArray[numpy.int32]]:
        first = [] if self.first_id is None else [numpy.array([self.first_id], numpy.int32)]
        return first + [
            chunk.flatten().to_numpy()
            for document in self.documents
            for chunk in document.data.column("input_ids").chunks
        ]

    @cached_property
    def _ends(self) -> list[int]:
        return [int(end) for end in numpy.cumsum([len(chunk) for chunk in self._chunks])]

    def _read(self, start: int, stop: int) -> NDArray[numpy.int64]:
        parts = []
        chunk = bisect_right(self._ends, start)
        while start < stop:
            offset = self._ends[chunk] - len(self._chunks[chunk])
            parts.append(self._chunks[chunk][start - offset : stop - offset])
            start = self._ends[chunk]
            chunk += 1
        return numpy.concatenate(parts).astype(numpy.int64)

    def __getstate__(self) -> dict[str, Any]:
        # A worker that is spawned maps the files again rather than receive their content.
        state = self.__dict__.copy()
        state.pop("_chunks", None)
        state.pop("_ends", None)
        return state


class StoredRows(Dataset[Row]):
    """Rows as `tokenise_padded` or `tokenise_whole` stored them.

    Args:
        rows: The stored rows.
        multiple_of: Fill up with empty rows to a multiple of this. Ranks then have equally many
            rows, and so equally many batches, without one row being scored twice or lost: an
            empty row is one token that is no target and no byte.
        filler_id: The token of an empty row.
    """

    def __init__(self, rows: datasets.Dataset, multiple_of: int = 1, filler_id: int = 0) -> None:
        self.rows = rows.with_format("numpy")
        self.multiple_of = multiple_of
        self.filler_id = filler_id

    def __len__(self) -> int:
        return -(-len(self.rows) // self.multiple_of) * self.multiple_of

    @override
    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self):
            raise IndexError(f"Row {index} of {len(self)}.")
        if index >= len(self.rows):
            return Row(input_ids=numpy.array([self.filler_id]), num_context=1, num_bytes=0)
        row: Row = self.rows[index]
        return row


class Collate:
    """Rows to a batch of tensors, padded on the right to the longest row.

    Labels are not shifted: ``labels[i]`` is ``input_ids[i]`` where token ``i`` is a target. They
    are masked by position, never by id, so that a real end token is a target although the padding
    has the same id.

    Args:
        pad_id: Id that fills short rows.

    Example:
        >>> rows = [Row(input_ids=numpy.array(ids), num_context=1) for ids in ([5, 6, 7], [5, 8])]
        >>> Collate(pad_id=0)(rows)["labels"].tolist()
        [[-100, 6, 7], [-100, 8, -100]]
    """

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """The batch.

        Args:
            rows: The rows.

        Returns:
            ``input_ids``, ``attention_mask`` and ``labels``, each ``(batch, time)``, and
            ``num_bytes`` ``(batch,)`` where the rows have it; all int64.
        """
        shape = (len(rows), max(len(row["input_ids"]) for row in rows))
        input_ids = torch.full(shape, self.pad_id)
        attention_mask = torch.zeros(shape, dtype=torch.long)
        labels = torch.full(shape, IGNORED)
        for number, row in enumerate(rows):
            ids = torch.as_tensor(row["input_ids"], dtype=torch.long)
            input_ids[number, : len(ids)] = ids
            attention_mask[number, : len(ids)] = 1
            labels[number, row["num_context"] : len(ids)] = ids[row["num_context"] :]
        batch = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
        if "num_bytes" in rows[0]:
            batch["num_bytes"] = torch.tensor([int(row["num_bytes"]) for row in rows])
        return batch
