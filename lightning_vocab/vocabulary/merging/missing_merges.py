"""Which merges a base lacks to reach given tokens, found from how it cuts them itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models

from lightning_vocab.vocabulary.bpe.layout import BpeLayout
from lightning_vocab.vocabulary.bpe.merge_training import Merge
from lightning_vocab.vocabulary.bpe.units import FIRST_PRIVATE, MAX_UNITS
from lightning_vocab.vocabulary.collector import collector_paused

_Rank = tuple[int, int]


@dataclass(frozen=True)
class Reached:
    """Tokens that a base can reach with merges behind its own.

    Args:
        characters: Single characters that the base lacks, in the given order.
        merges: One merge for each other token, in order of rank; both parts of each are in the base
            or stand before it.
    """

    characters: tuple[str, ...]
    merges: tuple[Merge, ...]

    @property
    def tokens(self) -> list[str]:
        """The tokens in the order of their ids."""
        return [*self.characters, *(left + right for left, right in self.merges)]

    def first(self, number: int, order: Sequence[str]) -> Reached:
        """The tokens that come first, each together with those that its merges need.

        The merges that fire inside a token's string are those that make it, so what is left out
        changes nothing about the tokens that stay.

        Args:
            number: The most tokens to keep.
            order: All tokens, the first to be kept first. A token that does not fit any more with
                all that it needs is passed over.
        """
        parts = {left + right: (left, right) for left, right in self.merges}
        reached = set(self.tokens)
        kept: set[str] = set()
        for token in order:
            if token not in reached or token in kept:
                continue
            needed, open_ = set[str](), [token]
            while open_:
                needed.add(part := open_.pop())
                new = reached.intersection(parts.get(part, ())) - kept - needed
                open_.extend(new)
            if len(kept) + len(needed) <= number:
                kept |= needed
            if len(kept) == number:
                break
        return Reached(
            tuple(char for char in self.characters if char in kept),
            tuple(merge for merge in self.merges if "".join(merge) in kept),
        )


def missing_merges(layout: BpeLayout, tokens: Sequence[str]) -> Reached:
    """The tokens that become reachable by one merge each, without any token in between.

    The base's merges run first, so a token starts as the pieces into which the base cuts it. Merges
    inside it then make tokens of fewer pieces only. So tokens are looked at by their number of
    pieces, all of one number in a batch: the merges of those with fewer leave two parts, and their
    merge makes the token, or more, and then nothing that is asked for does.

    A merge ranks in the given order, or in a further round of that order as soon as both of its
    parts rank before it. So no merge is possible before its turn, and a token that is reached stays
    reached, whatever ranks behind it.

    Cost: the base cuts each token once; then a tokenizer of the new merges alone is built for each
    number of pieces.

    Args:
        layout: The base.
        tokens: Tokens that the base lacks, in its spelling, distinct, the first to be made first.

    Raises:
        ValueError: If base and characters are more than the units there are.
    """
    characters = tuple(token for token in tokens if len(token) == 1)
    strings = _unit_strings(layout, characters, [token for token in tokens if len(token) > 1])
    order = {string: place for place, string in enumerate(strings)}
    by_size: dict[int, list[str]] = {}
    for string in strings:
        by_size.setdefault(len(string), []).append(string)
    rank: dict[str, _Rank] = {}
    made: dict[str, Merge] = {}
    alphabet = sorted(set().union(*strings))
    for size in sorted(by_size):
        for left, right in _halves(by_size[size], alphabet, _in_order(made, rank)):
            laps, place = max(rank.get(left, _FIRST), rank.get(right, _FIRST))
            string = left + right
            rank[string] = (laps + (place > order[string]), order[string])
            made[string] = (left, right)
    names = {chr(FIRST_PRIVATE + k): t for k, t in enumerate([*layout.tokens, *characters])}
    names |= strings
    merges = [(names[left], names[right]) for left, right in _in_order(made, rank)]
    return Reached(characters, tuple(merges))


_FIRST: _Rank = (0, -1)
"""Rank of what is there before any new merge: base tokens and characters."""


def _in_order(made: Mapping[str, Merge], rank: Mapping[str, _Rank]) -> list[Merge]:
    return [made[string] for string in sorted(made, key=rank.__getitem__)]


def _unit_strings(
    layout: BpeLayout, characters: Sequence[str], tokens: Sequence[str]
) -> dict[str, str]:
    """Each token by the string of its base pieces, one private code point a piece.

    Tokens with a piece that merges cannot join, such as a byte of a character that the base lacks,
    are left out.
    """
    num_ids = len(layout.tokens)
    if num_ids + len(characters) > MAX_UNITS:
        raise ValueError(
            f"Merging handles up to {MAX_UNITS} tokens and characters, the base has {num_ids} and "
            f"lacks {len(characters)} characters of the other."
        )
    model = layout.state.model
    vocab = {**model["vocab"], **{char: num_ids + k for k, char in enumerate(characters)}}
    with collector_paused():
        tokenizer = _bpe(vocab, [(left, right) for left, right in model["merges"]], model)
    encodings = tokenizer.encode_batch_fast(tokens, add_special_tokens=False)
    barriers = frozenset(np.flatnonzero(layout.is_barrier).tolist())
    return {
        "".join(chr(FIRST_PRIVATE + i) for i in encoding.ids): token
        for token, encoding in zip(tokens, encodings, strict=True)
        if barriers.isdisjoint(encoding.ids)
    }


def _halves(
    strings: Sequence[str], alphabet: Sequence[str], merges: Sequence[Merge]
) -> Iterator[Merge]:
    """The two parts of each string of units that the merges leave in two."""
    parts = [*alphabet, *(left + right for left, right in merges)]
    tokenizer = _bpe({part: k for k, part in enumerate(parts)}, merges, {})
    for encoding in tokenizer.encode_batch_fast(strings, add_special_tokens=False):
        if len(encoding) == 2:
            left, right = encoding.ids
            yield parts[left], parts[right]


def _bpe(vocab: Mapping[str, int], merges: Sequence[Merge], model: Mapping[str, Any]) -> Tokenizer:
    settings = {
        key: model[key] for key in ("unk_token", "fuse_unk", "byte_fallback") if key in model
    }
    return Tokenizer(models.BPE(dict(vocab), list(merges), **settings))
