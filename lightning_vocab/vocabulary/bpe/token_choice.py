"""Which tokens may be made, and which of those that may be are taken."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import regex

from lightning_vocab.vocabulary.bpe.layout import BpeLayout
from lightning_vocab.vocabulary.bpe.protected import ProtectedUnits


def check_patterns(exclude: Sequence[str] | None) -> tuple[str, ...]:
    """The patterns as a tuple, all of them regular expressions that leave some tokens.

    Args:
        exclude: Regular expressions of the `regex` library, or None for none.

    Raises:
        TypeError: If it is one string instead of a list, or an item is not a string.
        ValueError: If the list is empty, or a pattern is blank, holds NUL or a lone surrogate, is
            no regular expression, or matches the empty text, alone or inside every word.
    """
    if exclude is None:
        return ()
    if isinstance(exclude, str) or not isinstance(exclude, Sequence):
        raise TypeError(f"Expected a list of patterns in exclude, got {exclude!r}.")
    if not exclude:
        raise ValueError("Expected at least one pattern in exclude, got an empty list: use None.")
    for index, pattern in enumerate(exclude):
        if not isinstance(pattern, str):
            raise TypeError(f"Pattern {index} of exclude must be a string, got {pattern!r}.")
        if problem := _problem(pattern):
            raise ValueError(f"Pattern {index} of exclude, {pattern!r}, {problem}.")
    return tuple(exclude)


def _problem(pattern: str) -> str | None:
    if not pattern.strip():
        return r"is blank: write a blank as \s or [ ]"
    if "\0" in pattern or any("\ud800" <= char <= "\udfff" for char in pattern):
        return "holds NUL or a lone surrogate, which no token holds"
    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        return f"is no regular expression: {error}"
    if compiled.search(""):
        return "matches the empty text, so it would exclude every token"
    found = [compiled.search(word) for word in _WORDS]
    if all(match and not match[0] for match in found):
        return "matches the empty text inside every word, so it would exclude every word"
    return None


_WORDS = ("aa", " aa", "กก", "11")  # \b finds an empty match in each

Refusal = Literal["exclude", "protected"]


@dataclass(frozen=True)
class TokenChoice:
    """What the user allows of what the text offers.

    Args:
        layout: The base.
        exclude: Patterns of texts that no new token may hold; checked by `check_patterns`.
        protected: What must not be joined, if anything.
        whole_characters_only: Whether tokens that begin or end inside a character are taken only
            as parts of tokens that do not.
    """

    layout: BpeLayout
    exclude: tuple[str, ...] = ()
    protected: ProtectedUnits | None = None
    whole_characters_only: bool = False

    def refusal(self, *parts: str) -> Refusal | None:
        """Which setting is against a new token, if one is.

        Args:
            parts: The two tokens that it joins, as the vocabulary spells them; or one character
                that the base spells in byte tokens.
        """
        if self.protected is not None and self.protected.has(*parts):
            return "protected"
        return "exclude" if self.exclude and self._is_excluded("".join(parts)) else None

    def taken(self, merges: Sequence[tuple[str, str]], num_merges: int) -> list[tuple[str, str]]:
        """The first merges that suit, in their order: ``num_merges``, or fewer if there are not.

        With ``whole_characters_only`` those are the merges of whole tokens and, of the others, the
        ones on the way to them. A whole token that needs more merges than there is room for is
        passed over. What is passed over takes part in no token that is taken, so these can be
        produced without it.

        Args:
            merges: Merges that are allowed, by rank; each joins base tokens and earlier ones.
            num_merges: Number of merges wanted.
        """
        if not self.whole_characters_only:
            return list(merges[:num_merges])
        rank = {left + right: k for k, (left, right) in enumerate(merges)}
        kept: set[int] = set()
        for k, merge in enumerate(merges):
            if len(kept) == num_merges:
                break
            if k in kept or self._is_part("".join(merge)):
                continue
            needed = _unkept(k, merges, rank, kept)
            if len(kept) + len(needed) <= num_merges:
                kept |= needed
        return [merges[k] for k in sorted(kept)]

    def report(
        self, merges: Iterable[tuple[str, str]], refused: Iterable[tuple[str, ...]]
    ) -> dict[str, Any]:
        """What the manifest says about the choice, in plain JSON values; empty if nothing.

        Args:
            merges: The merges that were taken.
            refused: Parts, as in `refusal`, of the tokens that were not.
        """
        listed: dict[str, list[str]] = {}
        if self.whole_characters_only:
            tokens = map("".join, merges)
            listed["parts_of_characters"] = [token for token in tokens if self._is_part(token)]
        if self.exclude:
            listed["left_out_by_exclude"] = []
        if self.protected is not None:
            listed["left_out_by_protected"] = []
        for parts in refused:
            listed[f"left_out_by_{self.refusal(*parts)}"].append("".join(parts))
        numbers = {f"num_{name}": len(tokens) for name, tokens in listed.items()}
        return {**numbers, **listed}

    def _is_excluded(self, token: str) -> bool:
        surface = self.layout.utf8(token).decode(errors="replace")
        # `regex` keeps compiled patterns.
        return any(regex.search(pattern, surface) for pattern in self.exclude)

    def _is_part(self, token: str) -> bool:
        """Whether a token begins or ends inside a character."""
        data = self.layout.utf8(token)
        return data.decode(errors="ignore").encode() != data


def _unkept(
    at: int, merges: Sequence[tuple[str, str]], rank: dict[str, int], kept: set[int]
) -> set[int]:
    """A merge and those that its token is built from, as far as they are not kept yet."""
    needed: set[int] = set()
    waiting = [at]
    while waiting:
        k = waiting.pop()
        if k not in kept and k not in needed:
            needed.add(k)
            waiting += [rank[token] for token in merges[k] if token in rank]
    return needed
