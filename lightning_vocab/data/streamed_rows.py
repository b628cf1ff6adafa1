"""Rows to train on, cut from documents while they are read, from any row on."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import numpy
from lightning.fabric.utilities import rank_zero_info, rank_zero_warn
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info
from transformers import PreTrainedTokenizerBase
from typing_extensions import override

from lightning_vocab.data.buffers import BufferPlace, Reader, ShuffledBuffers
from lightning_vocab.data.rows import Row
from lightning_vocab.data.shards import Shard
from lightning_vocab.data.tokenise import Layout, cut, frame_of

_CHUNK = 256  # documents that are tokenised at once

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Place:
    """Behind which row of its stream a process stands.

    Args:
        buffer: Where the buffer begins that the row's documents stand in.
        document: The first document, in the shuffled buffer, of those tokenised with the row's.
        num_rows: Rows handed out of those documents.
        rest: Tokens that were left in front of those documents, fewer than a row.
    """

    buffer: BufferPlace = field(default_factory=BufferPlace)
    document: int = 0
    num_rows: int = 0
    rest: tuple[int, ...] | None = field(default=None, repr=False)

    def plain(self) -> dict[str, Any]:
        """The place as plain values, for a checkpoint."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Place:
        """The place that `plain` gave ``values`` for."""
        return cls(**{**values, "buffer": BufferPlace(**values["buffer"])})


class StreamedRows(IterableDataset[tuple[Batch, Place]]):
    """Batches of rows without end, each with the place behind it.

    Rows are packed as `PackedRows` packs them: the start token, then every document with its end
    token, neighbouring rows sharing one token. The stream goes on over the end of an epoch, so that
    no row is short and none is moved back. Padded rows come a document after the other.

    Each worker of each rank is a process with text of its own (`Reader`); what one worker reads
    ahead of the training is told apart by the places.

    Args:
        shards: All shards of the text.
        tokenizer: The tokenizer to cut with.
        layout: How documents become rows: ``packed`` or ``padded``.
        collate: Makes a batch of rows.
        batch_size: Rows of a batch.
        shuffle_buffer: Documents that are shuffled together; 1 keeps their order within a shard.
        seed: Seed of the order.
        num_replicas: Number of ranks.
        rank: This rank.
        num_workers: Processes that read and tokenise on each rank; without any, the rank does.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        tokenizer: PreTrainedTokenizerBase,
        layout: Layout,
        collate: Callable[[Sequence[Row]], Batch],
        *,
        batch_size: int,
        shuffle_buffer: int,
        seed: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
        num_workers: int = 0,
    ) -> None:
        self.shards = tuple(shards)
        self.tokenizer = tokenizer
        self.layout = layout
        self.collate = collate
        self.batch_size = batch_size
        self.shuffle_buffer = shuffle_buffer
        self.seed = seed
        self.num_replicas = num_replicas
        self.rank = rank
        self.num_workers = num_workers
        self.start_at([Place()] * self.num_processes, 0)

    @property
    def num_processes(self) -> int:
        """Processes of this rank that read text of their own."""
        return max(1, self.num_workers)

    def start_at(self, places: Sequence[Place], first_worker: int) -> None:
        """Let the next iteration go on where a former one stood.

        Args:
            places: The place of each worker.
            first_worker: The worker whose turn it is.
        """
        self._places, self._first_worker = tuple(places), first_worker

    @override
    def __iter__(self) -> Iterator[tuple[Batch, Place]]:
        info = get_worker_info()
        number, count = 0 if info is None else info.id, self.num_processes
        worker = (number + self._first_worker) % count  # torch begins with worker 0 again
        rows = self._rows(Reader(self.rank, self.num_replicas, worker, count), self._places[worker])
        while True:
            taken = list(islice(rows, self.batch_size))
            yield self.collate([row for row, _ in taken]), taken[-1][1]

    @property
    def order(self) -> dict[str, Any]:
        """Plain values on which the order of the rows of a process depends."""
        names = "\n".join(shard.name for shard in self.shards)
        return {
            "num_shards": len(self.shards),
            "shards": hashlib.sha256(names.encode()).hexdigest()[:16],
            "num_replicas": self.num_replicas,
            "num_workers": self.num_processes,
            "seed": self.seed,
            "shuffle_buffer": self.shuffle_buffer,
            "layout": self.layout.kind,
            "block_size": self.layout.block_size,
        }

    def tell_sharing(self) -> None:
        """Say it where shards do not come out even, so that several processes read each."""
        count = len(self.shards)
        _, _, sharers = Reader(0, self.num_replicas, 0, self.num_processes).share(count)
        if sharers == 1:
            return
        tell = rank_zero_info if all(shard.file for shard in self.shards) else rank_zero_warn
        tell(
            f"The streamed text has {count} shards, for {self.num_replicas} ranks with "
            f"{self.num_processes} reading processes each: {sharers} processes read each shard and "
            f"keep one document in {sharers}. Of a multiple of "
            f"{self.num_replicas * self.num_processes} shards (files) each would be read once."
        )

    def _rows(self, reader: Reader, place: Place) -> Iterator[tuple[Row, Place]]:
        buffers = ShuffledBuffers(
            self.shards, reader, seed=self.seed, buffer_size=self.shuffle_buffer
        )
        first, skipped = place.document, place.num_rows
        rest = self._start if place.rest is None else place.rest
        for buffer, texts in buffers.read(place.buffer):
            for document in range(first, len(texts), _CHUNK):
                rows, left = self._cut(rest, texts[document : document + _CHUNK])
                for number, row in enumerate(rows[skipped:], start=skipped + 1):
                    yield row, Place(buffer, document, number, rest)
                rest, skipped = left, 0
            first = 0

    @property
    def _start(self) -> tuple[int, ...]:
        frame = frame_of(self.tokenizer)
        is_in_front = self.layout.kind == "packed" and not frame.starts_documents
        return (frame.start,) if is_in_front else ()

    def _cut(self, rest: tuple[int, ...], texts: list[str]) -> tuple[list[Row], tuple[int, ...]]:
        """The rows of some documents behind the tokens that were left, and what is left now."""
        found = cut(texts, self.tokenizer, self.layout)
        if self.layout.kind == "padded":
            pairs = zip(found["input_ids"], found["num_context"], strict=True)
            return [Row(input_ids=numpy.array(ids), num_context=n) for ids, n in pairs], ()
        tokens = numpy.fromiter(chain(rest, *found["input_ids"]), numpy.int64)
        rows, left = pack(tokens, self.layout.block_size)
        return [Row(input_ids=ids, num_context=1) for ids in rows], tuple(left.tolist())


def pack(
    tokens: NDArray[numpy.int64], block_size: int
) -> tuple[NDArray[numpy.int64], NDArray[numpy.int64]]:
    """Cut tokens into full rows that share one token with the next, as `PackedRows` does.

    Args:
        tokens: Tokens, ``(n,)``.
        block_size: Tokens of a row, at least 2.

    Returns:
        The rows, ``(num_rows, block_size)``, a view; and the tokens to put in front of those to
        come, fewer than ``block_size``, the first of them the last of the last row.

    Example:
        >>> rows, left = pack(numpy.arange(9), block_size=4)
        >>> rows.tolist(), left.tolist()
        ([[0, 1, 2, 3], [3, 4, 5, 6]], [6, 7, 8])
    """
    step = block_size - 1
    num_rows = max(0, len(tokens) - 1) // step
    if not num_rows:
        return numpy.empty((0, block_size), numpy.int64), tokens
    # Nobody writes to the rows, but torch warns of arrays that forbid it.
    return sliding_window_view(tokens, block_size, writeable=True)[
        : num_rows * step : step
    ], tokens[num_rows * step :]
