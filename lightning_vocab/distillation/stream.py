"""The tokenised documents of several sources, one after the other, read in place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import datasets
import numpy
from numpy.typing import NDArray


class Block(NamedTuple):
    """Whole documents that lie together.

    Args:
        start: Place of the first token in the stream.
        ids: Token ids, ``(num_tokens,)``.
        firsts: Where the text of each document begins in ``ids``, behind its start token if it has
            one, ``(num_documents,)``.
        ends: Where each document ends, ``(num_documents,)``.
    """

    start: int
    ids: NDArray[numpy.int32]
    firsts: NDArray[numpy.int64]
    ends: NDArray[numpy.int64]


class TokenStream:
    """Documents in the packed layout, mapped into memory; nothing is copied but what is read.

    Args:
        documents: What `RowCache.load` gave for each source, in the order of the stream.
        starts_documents: Whether each document has a start token in front of its text.
    """

    def __init__(self, documents: Sequence[datasets.Dataset], *, starts_documents: bool) -> None:
        self.documents = tuple(documents)
        self.starts_documents = starts_documents

    def blocks(self) -> Iterator[Block]:
        """The stream in blocks, as they were stored: by default 1,000 documents at a time."""
        start = 0
        for chunk in self._chunks():
            ids = chunk.flatten().to_numpy()
            lengths = chunk.value_lengths().to_numpy().astype(numpy.int64)
            ends = numpy.cumsum(lengths)
            yield Block(start, ids, ends - lengths + self.starts_documents, ends)
            start += len(ids)

    def read(self, start: int, length: int) -> NDArray[numpy.int64]:
        """``length`` tokens of one document from place ``start`` of the stream on."""
        number = int(numpy.searchsorted(self._ends, start, side="right"))
        ids = self._ids[number]
        first = start - (int(self._ends[number]) - len(ids))
        return ids[first : first + length].astype(numpy.int64)

    def _chunks(self) -> Iterator[Any]:
        for document in self.documents:
            yield from document.data.column("input_ids").chunks

    @cached_property
    def _ids(self) -> list[NDArray[numpy.int32]]:
        return [chunk.flatten().to_numpy() for chunk in self._chunks()]

    @cached_property
    def _ends(self) -> NDArray[numpy.int64]:
        return numpy.cumsum([len(ids) for ids in self._ids])

    def __getstate__(self) -> dict[str, Any]:
        # A worker that is spawned maps the files again rather than receive their content.
        state = self.__dict__.copy()
        state.pop("_ids", None)
        state.pop("_ends", None)
        return state
