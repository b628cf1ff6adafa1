"""Tokens of a text for every number of new tokens, exactly, from one growth and one encoding.

New merges are ordered, and the vocabulary with the first ``k`` new tokens is what a growth by ``k``
gives. How often each merge acts therefore says what every smaller vocabulary makes of the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from lightning_vocab.vocabulary.backend_state import read_state
from lightning_vocab.vocabulary.bpe.continued_bpe import ContinuedBPE
from lightning_vocab.vocabulary.corpus import batches
from lightning_vocab.vocabulary.expansion import ExpandedTokenizer
from lightning_vocab.vocabulary.fingerprint import backend, without_limits
from lightning_vocab.vocabulary.limits import TooFewTokensError

Counts = npt.NDArray[np.int64]


def grow_as_far_as_possible(
    tokenizer: PreTrainedTokenizerBase,
    texts: Callable[[], Iterable[str]],
    settings: Mapping[str, Any],
) -> ExpandedTokenizer:
    """The base grown by `ContinuedBPE`, by fewer tokens where the text does not give as many.

    Args:
        tokenizer: The base tokenizer.
        texts: Gives the documents to learn from; called again where they give too few tokens.
        settings: Arguments of `ContinuedBPE`.

    Raises:
        ValueError: As `ContinuedBPE`, and if not a single token is possible.
    """
    try:
        return ContinuedBPE(**settings).extend(tokenizer, texts())
    except TooFewTokensError as error:
        if not error.possible:
            raise
        possible = {**settings, "num_new_tokens": error.possible}
    return ContinuedBPE(**possible).extend(tokenizer, texts())


@dataclass(frozen=True)
class Lineage:
    """What each new token is made of, in the order in which they were learned.

    Args:
        ids: Id of each new token, ``(num_new,)``.
        parts: The two parts of each, as places in this list, -1 for a base token; both -1 for a
            character that the base spells in byte tokens, ``(num_new, 2)``.
        spared: Tokens that are fewer each time the token is made, ``(num_new,)``: 1 for a merge,
            one less than its bytes for a character.
    """

    ids: Counts
    parts: Counts
    spared: Counts

    @classmethod
    def of(cls, base: PreTrainedTokenizerBase, grown: ExpandedTokenizer) -> Self:
        """The lineage of a tokenizer that `ContinuedBPE` appended tokens to.

        Args:
            base: The tokenizer before it grew.
            grown: The grown tokenizer.

        Raises:
            ValueError: If a new token is neither a merge of earlier tokens nor a base character.
        """
        num_old = len(read_state(base).model["merges"])
        merges = read_state(grown.tokenizer).model["merges"][num_old:]
        tokens = grown.expansion.tokens
        place = {token.token: k for k, token in enumerate(tokens)}
        parts = np.full((len(tokens), 2), -1, np.int64)
        spared = np.array([len(token.pieces) - 1 for token in tokens], np.int64)
        for left, right in merges:
            k = place[left + right]
            parts[k] = place.get(left, -1), place.get(right, -1)
            spared[k] = 1
        if wrong := np.flatnonzero(parts.max(1, initial=-1) >= np.arange(len(tokens))).tolist():
            raise ValueError(
                f"New token {tokens[wrong[0]].token!r} is built from a later one: expected tokens "
                "in the order in which ContinuedBPE learned them, appended behind the base."
            )
        return cls(np.array(grown.expansion.new_ids, np.int64), parts, spared)

    def times_made(self, counts: Counts) -> Counts:
        """How often each new token was made on the way to ``counts``, ``(num_new,)``.

        A token that was made stands in the text or is part of a later one: ``made(t) = count(t) +``
        the times that the tokens were made which `t` is a part of, twice for both parts.

        Args:
            counts: How often each new token stands in a text, ``(num_new,)``.
        """
        made: list[int] = counts.tolist()
        # Each number needs those of all later tokens, so this goes one by one, from the last.
        for k, (left, right) in zip(
            range(len(made) - 1, -1, -1), self.parts[::-1].tolist(), strict=True
        ):
            if left >= 0:
                made[left] += made[k]
            if right >= 0:
                made[right] += made[k]
        return np.array(made, np.int64)

    def counts_at(self, made: Counts, size: int) -> Counts:
        """How often each of the first ``size`` new tokens stands in the text if there are no more.

        Args:
            made: What `times_made` gave for the text.
            size: Number of new tokens.
        """
        parts = self.parts[:size]
        counts = made[:size].copy()
        for column in (0, 1):
            is_new = parts[:, column] >= 0
            np.subtract.at(counts, parts[is_new, column], made[:size][is_new])
        return counts


@dataclass(frozen=True)
class GrowthCurve:
    """A text and what every number of new tokens makes of it.

    Args:
        lineage: The new tokens.
        num_documents: Documents of the text.
        num_bytes: Its bytes in UTF-8.
        num_tokens_before: Tokens that the base makes of it.
        made: How often each new token is made in it, ``(num_new,)``.
    """

    lineage: Lineage
    num_documents: int
    num_bytes: int
    num_tokens_before: int
    made: Counts

    @cached_property
    def num_tokens(self) -> Counts:
        """Tokens of the text with the first ``k`` new tokens, ``(num_new + 1,)``."""
        spared = np.cumsum(self.made * self.lineage.spared)
        return self.num_tokens_before - np.concatenate([np.zeros(1, np.int64), spared])

    @property
    def tokens_per_byte(self) -> npt.NDArray[np.float64]:
        """Tokens per byte with the first ``k`` new tokens, ``(num_new + 1,)``."""
        return self.num_tokens / self.num_bytes

    @property
    def share_saved(self) -> npt.NDArray[np.float64]:
        """Share of the base's tokens that the first ``k`` new tokens save, ``(num_new + 1,)``."""
        return 1 - self.num_tokens / self.num_tokens_before

    def counts_at(self, size: int) -> Counts:
        """How often each of the first ``size`` new tokens stands in the text, ``(size,)``.

        Args:
            size: Number of new tokens in all.
        """
        return self.lineage.counts_at(self.made, size)

    def joined_with(self, other: GrowthCurve) -> GrowthCurve:
        """The curve of both texts together.

        Args:
            other: The curve of another text for the same new tokens.
        """
        return GrowthCurve(
            self.lineage,
            self.num_documents + other.num_documents,
            self.num_bytes + other.num_bytes,
            self.num_tokens_before + other.num_tokens_before,
            self.made + other.made,
        )


def measure_curve(
    base: PreTrainedTokenizerBase,
    grown: ExpandedTokenizer,
    lineage: Lineage,
    texts: Iterable[str],
) -> GrowthCurve:
    """The curve of a text: it is encoded once by the base and once by the grown tokenizer.

    Args:
        base: The base tokenizer.
        grown: The base grown by `ContinuedBPE`, to the largest size.
        lineage: Its `Lineage`.
        texts: Documents, read once and a batch at a time.

    Raises:
        ValueError: If there is no text, or the counts contradict each other, so that the grown
            tokenizer is not the base with merges appended.
    """
    old, new = backend(base), backend(grown.tokenizer)
    counts = np.zeros(int(lineage.ids.max()) + 1, np.int64)
    num_documents = num_bytes = before = after = 0
    with without_limits(old), without_limits(new):
        for batch in batches(texts):
            num_documents += len(batch)
            num_bytes += sum(len(text.encode()) for text in batch)
            before += sum(map(len, old.encode_batch_fast(batch, add_special_tokens=False)))
            encodings = new.encode_batch_fast(batch, add_special_tokens=False)
            num_tokens = sum(map(len, encodings))
            after += num_tokens
            ids = chain.from_iterable(encoding.ids for encoding in encodings)
            found = np.bincount(np.fromiter(ids, np.int64, num_tokens), minlength=len(counts))
            counts += found[: len(counts)]
    curve = GrowthCurve(
        lineage, num_documents, num_bytes, before, lineage.times_made(counts[lineage.ids])
    )
    if int(curve.num_tokens[-1]) != after:
        raise ValueError(
            f"Expected {curve.num_tokens[-1]} tokens after {len(lineage.ids)} merges, the grown "
            f"tokenizer gives {after}: it is not the base with merges appended."
        )
    return curve
