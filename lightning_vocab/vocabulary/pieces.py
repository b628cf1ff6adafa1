"""Put the pieces of new tokens in their place."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy
from numpy.typing import NDArray

from lightning_vocab.vocabulary.expansion import NewToken

Ids = NDArray[numpy.int64]


class PieceTable:
    """Replaces tokens by the pieces that the manifest names.

    Where merges were only appended and each new token is the result of one merge, replacing every
    new token gives exactly the base tokenizer's cut of the same text: base merges run to completion
    first, so a new token always stands for the same pieces. Where several merges lead to one token,
    and for Unigram and tokens that are matched before everything else (`AddTokens`, slots), it
    gives the base's cut of each token by itself: the same text in base tokens, which in its place
    the base might cut otherwise.

    Args:
        tokens: The tokens to replace.
        num_rows: Number of ids.

    Example:
        >>> table = PieceTable([NewToken(9, "abc", "abc", "text", (4, 5, 6))], num_rows=10)
        >>> ids, ends = table.expand(numpy.array([1, 9, 2]))
        >>> ids.tolist(), ends.tolist()
        ([1, 4, 5, 6, 2], [1, 4, 5])
    """

    def __init__(self, tokens: Sequence[NewToken], num_rows: int) -> None:
        ids = [token.id for token in tokens]
        lengths = numpy.array([len(token.pieces) for token in tokens], numpy.int64)
        self._pieces = numpy.fromiter(chain.from_iterable(t.pieces for t in tokens), numpy.int64)
        self._lengths = numpy.ones(num_rows, numpy.int64)
        self._lengths[ids] = lengths
        self._first = numpy.full(num_rows, -1, numpy.int64)
        self._first[ids] = numpy.cumsum(lengths) - lengths

    def holds(self, ids: Ids) -> NDArray[numpy.bool_]:
        """Which of ``ids`` are replaced, in their shape."""
        return self._first[ids] >= 0

    def expand(self, ids: Ids) -> tuple[Ids, Ids]:
        """``ids`` with pieces in place of tokens, and where each of ``ids`` ends in that.

        The last piece of ``ids[i]`` is at ``ends[i] - 1``; of a token that stays, that is itself.

        Args:
            ids: Token ids, ``(time,)``.

        Returns:
            The expanded ids, ``(ends[-1],)``, and the ends, ``(time,)``.
        """
        lengths = self._lengths[ids]
        ends = numpy.cumsum(lengths)
        expanded = numpy.repeat(ids, lengths)
        place = numpy.arange(len(expanded)) - numpy.repeat(ends - lengths, lengths)
        first = self._first[expanded]
        replaced = first >= 0
        expanded[replaced] = self._pieces[(first + place)[replaced]]
        return expanded, ends
