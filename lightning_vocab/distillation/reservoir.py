"""A uniform sample of the occurrences of every token, in one pass and in bounded memory."""

from __future__ import annotations

import numpy
from numpy.typing import NDArray

SNIPPET = numpy.dtype([("token", "i4"), ("length", "i4"), ("start", "i8"), ("key", "f8")])
"""A snippet: the token it was mined for (its place among the new tokens), its tokens, where it
begins in the stream, and the random number that it was drawn with."""


class Reservoir:
    """Keeps, of all that is offered, the ``size`` rows of each token with the smallest keys.

    With keys that are drawn independently, every subset of ``size`` occurrences of a token is
    equally likely, however many there are and in whatever portions they come.

    Memory: at most ``2 * size * num_tokens`` rows of 24 bytes and one portion. Cost: a sort of
    them whenever so many have gathered; from then on most occurrences of a frequent token fail a
    look at `limits`.

    Args:
        num_tokens: Number of tokens.
        size: Rows to keep for each token.

    Example:
        >>> reservoir = Reservoir(num_tokens=1, size=2)
        >>> for key in (0.7, 0.1, 0.4):
        ...     reservoir.add(numpy.array([(0, 5, 10, key)], dtype=SNIPPET))
        >>> reservoir.rows()["key"].tolist()
        [0.1, 0.4]
    """

    def __init__(self, num_tokens: int, size: int) -> None:
        self.size = size
        self.limits = numpy.full(num_tokens, numpy.inf)
        """A row whose key is not below its token's limit would not be kept, ``(num_tokens,)``."""
        self._portions: list[NDArray[numpy.void]] = [numpy.empty(0, SNIPPET)]
        self._num_rows = 0

    def add(self, rows: NDArray[numpy.void]) -> None:
        """Offer rows of the type `SNIPPET`."""
        self._portions.append(rows)
        self._num_rows += len(rows)
        if self._num_rows > 2 * self.size * len(self.limits):
            self._prune()

    def rows(self) -> NDArray[numpy.void]:
        """The rows that are kept, by token and then by key."""
        self._prune()
        return self._portions[0]

    def _prune(self) -> None:
        rows = numpy.concatenate(self._portions)
        rows = rows[numpy.lexsort((rows["start"], rows["key"], rows["token"]))]
        token = rows["token"]
        rank = numpy.arange(len(rows)) - numpy.searchsorted(token, token)
        last = rows[rank == self.size - 1]
        self.limits[last["token"]] = last["key"]
        self._portions = [rows[rank < self.size]]
        self._num_rows = len(self._portions[0])
