"""The documents that one process reads of a stream: shuffled, without end, from any place on.

An epoch goes through the shards in an order that the seed and the epoch fix. Several shards are
open at once; pieces of them, chosen at random in proportion to the sizes of their files, are
gathered into a buffer of some thousands of documents, which is shuffled, handed out whole and
filled anew. What a buffer holds depends on nothing but its place, so that a few numbers bring it
back: no text has to be stored to continue exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from lightning_vocab.data.shards import Shard, with_text

_MOST_OPEN = 8  # shards that are read from at once
_MOST_EMPTY = 10  # epochs in a row without text: where shards move, one may go without
_PIECE = 64  # documents that are read from one shard before the next is chosen


@dataclass(frozen=True)
class BufferPlace:
    """Where a buffer begins.

    Args:
        epoch: How often this process has gone through its documents.
        buffer: Number of the buffer in the epoch.
        next_shard: The first shard, in the order of the epoch, that is not open yet.
        opened: Number in the order, and documents read, of each open shard.
    """

    epoch: int = 0
    buffer: int = 0
    next_shard: int = 0
    opened: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Reader:
    """One of the processes that share a stream out.

    Args:
        rank: The rank, among those that read different text.
        num_replicas: Number of such ranks.
        worker: The worker of the rank's loader.
        num_workers: Number of its workers; 1 if the rank itself reads.

    Example:
        >>> reader = Reader(rank=1, num_replicas=2, worker=0, num_workers=3)
        >>> [reader.share(count) for count in (6, 4, 5)]
        [(3, 6, 1), (1, 2, 3), (0, 1, 6)]
    """

    rank: int = 0
    num_replicas: int = 1
    worker: int = 0
    num_workers: int = 1

    @property
    def number(self) -> int:
        """Number of this process among all."""
        return self.rank * self.num_workers + self.worker

    def share(self, num_shards: int) -> tuple[int, int, int]:
        """Which shards this process reads, and how many processes read each.

        Shards are dealt out where they come out even, to processes or at least to ranks, as
        `datasets.distributed.split_dataset_by_node` does; else everybody reads all and keeps one
        document in so many.

        Args:
            num_shards: Number of shards.

        Returns:
            The first shard, the step to the next, and how many processes share each.
        """
        everybody = self.num_replicas * self.num_workers
        if num_shards % everybody == 0:
            return self.number, everybody, 1
        if num_shards % self.num_replicas == 0:
            return self.rank, self.num_replicas, self.num_workers
        return 0, 1, everybody


class ShuffledBuffers:
    """The documents of one process in shuffled buffers, without end.

    Every epoch has every document of the process once, and the epochs of all processes together
    every document of the text once. A process with less text than another begins its next epoch
    sooner.

    Args:
        shards: All shards of the text.
        reader: This process.
        seed: Seed of the order.
        buffer_size: Documents of a buffer, to within a piece; that much text is held in memory.
    """

    def __init__(
        self, shards: Sequence[Shard], reader: Reader, *, seed: int, buffer_size: int
    ) -> None:
        self.shards = shards
        self.reader = reader
        self.seed = seed
        self.buffer_size = buffer_size

    def read(self, place: BufferPlace) -> Iterator[tuple[BufferPlace, list[str]]]:
        """Blocks from ``place`` on, each with the place where it begins.

        Args:
            place: Where to begin.

        Raises:
            ValueError: If there is no document for this process, time and again, in any shard.
        """
        num_empty, seen_empty = 0, set[int]()
        while num_empty < _MOST_EMPTY or len(seen_empty) < len(self.shards):
            epoch = _Epoch(self, place)
            seen_empty.update(epoch.shards)
            while texts := epoch.buffer():
                yield place, texts
                place = epoch.place
                num_empty = -1
                seen_empty.clear()
            num_empty += 1
            place = BufferPlace(place.epoch + 1)
        raise ValueError(
            f"No text for process {self.reader.number + 1} of "
            f"{self.reader.num_replicas * self.reader.num_workers} in {num_empty} epochs: expected "
            "a document that is not blank for each worker of each rank. Give more text or fewer "
            "workers."
        )


class _Epoch:
    """The buffers of one epoch, from a place on."""

    def __init__(self, buffers: ShuffledBuffers, place: BufferPlace) -> None:
        self.buffers = buffers
        self.place = place
        first, step, self._sharers = buffers.reader.share(len(buffers.shards))
        order = self._random(0).permutation(len(buffers.shards))
        self._order: NDArray[numpy.int64] = order[first::step]
        self._next_shard = place.next_shard
        self._open = [self._opened(number, position) for number, position in place.opened]

    @property
    def shards(self) -> list[int]:
        """Which of all shards this process reads, in order."""
        return [int(index) for index in self._order]

    def buffer(self) -> list[str]:
        """The buffer of `place`, which moves behind it; empty at the end of the epoch."""
        random = self._random(1, self.place.buffer, self.buffers.reader.number)
        texts: list[str] = []
        while len(texts) < self.buffers.buffer_size and self._open_more():
            shard = self._open[random.choice(len(self._open), p=self._weights())]
            piece = shard.piece()
            if piece is None:
                self._open.remove(shard)
            else:
                texts += piece
        opened = tuple((shard.number, shard.position) for shard in self._open)
        self.place = BufferPlace(self.place.epoch, self.place.buffer + 1, self._next_shard, opened)
        return [texts[index] for index in random.permutation(len(texts))]

    def _random(self, *what: int) -> numpy.random.Generator:
        seed = self.buffers.seed % 2**64  # numpy takes no negative one
        return numpy.random.default_rng([seed, self.place.epoch, *what])

    def _open_more(self) -> bool:
        while len(self._open) < _MOST_OPEN and self._next_shard < len(self._order):
            self._open.append(self._opened(self._next_shard, 0))
            self._next_shard += 1
        return bool(self._open)

    def _opened(self, number: int, position: int) -> _OpenShard:
        index = int(self._order[number])
        # The deal begins with another process in each shard: many shards may hold one document.
        offset = (self.buffers.reader.number - index) % self._sharers
        piece = max(1, min(_PIECE, self.buffers.buffer_size // _MOST_OPEN)) * self._sharers
        return _OpenShard(
            self.buffers.shards[index], number, position, piece, offset, self._sharers
        )

    def _weights(self) -> NDArray[numpy.float64]:
        sizes = [shard.num_bytes for shard in self._open]
        known = [size for size in sizes if size is not None]
        given = known if len(known) == len(sizes) else [1] * len(sizes)
        weights: NDArray[numpy.float64] = numpy.array(given, float)
        weights /= weights.sum()
        return weights


class _OpenShard:
    """A shard from a document on, of which one document in ``step`` is kept."""

    def __init__(
        self, shard: Shard, number: int, position: int, piece: int, offset: int, step: int
    ) -> None:
        self.number = number
        self.position = position
        size = shard.num_bytes
        self.num_bytes = None if size is None else max(1, size)
        self._documents = shard.read(position, piece)
        self._offset, self._step = offset, step

    def piece(self) -> list[str] | None:
        """The next documents that are kept and hold text; None behind the last."""
        texts = next(self._documents, None)
        if texts is None:
            return None
        first = (self._offset - self.position) % self._step
        self.position += len(texts)
        return with_text(texts[first :: self._step])
