"""Snippets of a corpus around the occurrences of the new tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy
from numpy.typing import NDArray

from lightning_vocab.distillation.reservoir import SNIPPET, Reservoir
from lightning_vocab.distillation.stream import Block, TokenStream
from lightning_vocab.vocabulary.expansion import VocabularyExpansion

Places = NDArray[numpy.int64]


@dataclass(frozen=True)
class Snippets:
    """Where the snippets lie in a stream, and how often each new token occurs in it.

    Args:
        rows: The snippets, of the type `SNIPPET`, by the token that they were mined for (its place
            among the new tokens) and then in random order.
        num_occurrences: Occurrences of each new token in the whole stream, ``(num_new,)``.
    """

    rows: NDArray[numpy.void]
    num_occurrences: NDArray[numpy.int64]

    def save(self, path: Path) -> None:
        """Write both arrays into one file."""
        with path.open("wb") as file:  # numpy would add a suffix to a path that lacks it
            numpy.savez(file, rows=self.rows, num_occurrences=self.num_occurrences)

    @classmethod
    def load(cls, path: Path) -> Snippets:
        """What `save` wrote."""
        with numpy.load(path, allow_pickle=False) as arrays:
            return cls(arrays["rows"], arrays["num_occurrences"])


@dataclass(frozen=True)
class Mining:
    """What snippets are looked for.

    Args:
        num_snippets: Snippets of each token at most.
        snippet_length: Tokens of a snippet at most, cut by the grown tokenizer.
        max_pieces: Tokens of a snippet at most, each new token counted by its pieces.
        seed: Seed of the choice of occurrences and of their place in the snippet.

    Raises:
        ValueError: If a number is below 1.
    """

    num_snippets: int
    snippet_length: int
    max_pieces: int
    seed: int

    def __post_init__(self) -> None:
        if min(self.num_snippets, self.snippet_length, self.max_pieces) < 1:
            raise ValueError(
                "Expected num_snippets and snippet_length of at least 1 and a block_size of at "
                f"least 2, got {self.num_snippets}, {self.snippet_length} and "
                f"{self.max_pieces + 1}."
            )

    def mine(self, stream: TokenStream, expansion: VocabularyExpansion) -> Snippets:
        """Snippets around occurrences that are drawn uniformly from the whole stream.

        One pass. A snippet lies within one document and is as long as the document and the limits
        allow; its token may stand anywhere in it, each place as likely as the others but near the
        ends of a document. It counts for the token that it was mined for alone, whatever other new
        tokens it holds. The result depends on the stream and the seed, not on how it was stored.

        Memory: `Reservoir`'s, and a few numbers for each token of one block.

        Args:
            stream: The tokenised corpus.
            expansion: The manifest of the new tokens.

        Raises:
            ValueError: If a token has more pieces than ``max_pieces``.
        """
        num_pieces = _num_pieces(expansion, self.max_pieces)
        place = numpy.full(expansion.num_rows, -1, numpy.int32)
        place[list(expansion.new_ids)] = numpy.arange(len(expansion.tokens))
        reservoir = Reservoir(len(expansion.tokens), self.num_snippets)
        num_occurrences = numpy.zeros(len(expansion.tokens), numpy.int64)
        generator = numpy.random.default_rng(self.seed)
        for block in stream.blocks():
            at, document = _occurrences(block, place)
            token = place[block.ids[at]]
            num_occurrences += numpy.bincount(token, minlength=len(num_occurrences))
            drawn = generator.random((len(at), 2))
            kept = drawn[:, 0] < reservoir.limits[token]
            before = (drawn[kept, 1] * self.snippet_length).astype(numpy.int64)
            first, stop = self._windows(block, at[kept], document[kept], before, num_pieces)
            rows = numpy.empty(len(first), SNIPPET)
            rows["token"], rows["key"] = token[kept], drawn[kept, 0]
            rows["start"], rows["length"] = block.start + first, stop - first
            reservoir.add(rows)
        return Snippets(reservoir.rows(), num_occurrences)

    def _windows(
        self,
        block: Block,
        at: Places,
        document: Places,
        before: Places,
        num_pieces: NDArray[numpy.int64],
    ) -> tuple[Places, Places]:
        """First token and end in the block of a window around each place in ``at``.

        Args:
            block: The documents.
            at: Places of tokens in the block.
            document: The document of each.
            before: How many tokens to take in front of each, below ``snippet_length``.
            num_pieces: Pieces of each id.
        """
        begin, end = block.firsts[document], block.ends[document]
        stop = numpy.minimum(numpy.maximum(at - before, begin) + self.snippet_length, end)
        first = numpy.maximum(stop - self.snippet_length, begin)
        # Pieces in front of every place: ascending, so that a search finds where a limit is met.
        pieces = numpy.concatenate([[0], numpy.cumsum(num_pieces[block.ids])])
        earliest = numpy.searchsorted(pieces, pieces[at + 1] - self.max_pieces)
        first = numpy.maximum(first, earliest)
        latest = numpy.searchsorted(pieces, pieces[first] + self.max_pieces, side="right") - 1
        return first, numpy.minimum(stop, latest)


def _num_pieces(expansion: VocabularyExpansion, limit: int) -> NDArray[numpy.int64]:
    num_pieces = numpy.ones(expansion.num_rows, numpy.int64)
    num_pieces[list(expansion.new_ids)] = [len(token.pieces) for token in expansion.tokens]
    longest = max(expansion.tokens, key=lambda token: len(token.pieces))
    if len(longest.pieces) > limit:
        raise ValueError(
            f"New token {longest.id} ({longest.token!r}) has {len(longest.pieces)} pieces, which "
            f"do not fit into a row of {limit + 1} tokens with its start token: give a larger "
            "block_size."
        )
    return num_pieces


def _occurrences(block: Block, place: NDArray[numpy.int32]) -> tuple[Places, Places]:
    """Where new tokens stand in the text of the block, and in which documents."""
    at = numpy.flatnonzero(place[block.ids] >= 0)
    document = numpy.searchsorted(block.ends, at, side="right")
    in_text = at >= block.firsts[document]  # the start token may be new itself
    return at[in_text], document[in_text]
