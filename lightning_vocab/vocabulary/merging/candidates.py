"""Which tokens of a second tokenizer can be asked of a base, and why the others cannot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import regex

from lightning_vocab.vocabulary.bpe.layout import BpeLayout
from lightning_vocab.vocabulary.characters import FOREIGN, WANTED, script_table
from lightning_vocab.vocabulary.fingerprint import backend
from lightning_vocab.vocabulary.merging.other_vocabulary import OtherVocabulary, as_text, respell

IN_BASE = "in the base"
OTHER_SCRIPT = "of other scripts"
CUT = "cut by the base before merging"
PROTOCOL = "taken by an added token of the base"
UNSPELLABLE = "not spellable in the base"
TWICE = "spelled in the base like another of its tokens"


@dataclass(frozen=True)
class Candidates:
    """The tokens of another vocabulary, sorted out.

    Args:
        tokens: Spelling in the base of each token to ask for, with its spelling in the other, in
            the other's order.
        left_out: The other tokens, in the other's spelling, by reason.
    """

    tokens: Mapping[str, str]
    left_out: Mapping[str, tuple[str, ...]]


def find_candidates(
    layout: BpeLayout, other: OtherVocabulary, scripts: tuple[str, ...]
) -> Candidates:
    """Sort out the tokens of another vocabulary.

    Args:
        layout: The base.
        other: The other vocabulary.
        scripts: Scripts of which tokens are taken, empty for all: tokens with a character of these
            and no letter of another. Parts of characters are taken where such a token holds them.
    """
    check = _Check(layout)
    spelled = respell(other.tokens, other.spelling, layout.kind)
    texts = [as_text(token, other.spelling) for token in other.tokens]
    is_wanted = _of_scripts(other.tokens, texts, scripts)
    tokens: dict[str, str] = {}
    left_out: dict[str, list[str]] = {}
    for token, own, text, wanted in zip(other.tokens, spelled, texts, is_wanted, strict=True):
        reason = check.problem(own, text)
        if reason is None and not wanted:
            reason = OTHER_SCRIPT
        if reason is None and own in tokens:
            reason = TWICE
        if own is None or reason is not None:
            left_out.setdefault(reason or UNSPELLABLE, []).append(token)
        else:
            tokens[own] = token
    return Candidates(tokens, {reason: tuple(names) for reason, names in left_out.items()})


class _Check:
    """Tells why a base cannot have a token."""

    def __init__(self, layout: BpeLayout) -> None:
        self._layout = layout
        state = layout.state
        added = [item["content"] for item in state.added_tokens]
        pattern = "|".join(map(regex.escape, added)) or r"(?!)"
        self._added = regex.compile(pattern)
        self._text_tokens = frozenset(
            token
            for token, barrier in zip(layout.tokens, layout.is_barrier, strict=True)
            if not barrier
        )
        self._tokenizer = backend(state.tokenizer)
        self._cuts = layout.cuts_words
        self._normalizes = layout.kind == "byte-level" and state.data["normalizer"] is not None

    def problem(self, own: str | None, text: str | None) -> str | None:
        """The reason, or None if there is none.

        Args:
            own: The token in the base's spelling, None if it has none.
            text: What it stands for, None if it begins or ends inside a character.
        """
        if own is None:
            return UNSPELLABLE
        if own in self._text_tokens or self._is_one_byte(own):
            return IN_BASE
        if text is not None and self._added.search(text):
            return PROTOCOL
        if not self._layout.is_allowed(own):
            return UNSPELLABLE
        # A part of a character stands in words only, and goes wherever its character goes.
        return CUT if text is not None and self._is_cut(text) else None

    def _is_one_byte(self, own: str) -> bool:
        """Whether the base has one token for it already, if of another spelling: ``<0x0A>``."""
        return self._layout.kind == "byte-fallback" and len(own) == 1 and own.isascii()

    def _is_cut(self, text: str) -> bool:
        if self._normalizes and self._tokenizer.normalizer.normalize_str(text) != text:
            return True
        pre_tokenizer = self._tokenizer.pre_tokenizer
        return self._cuts and len(pre_tokenizer.pre_tokenize_str(text)) != 1


def _of_scripts(
    tokens: Sequence[str], texts: Sequence[str | None], scripts: tuple[str, ...]
) -> list[bool]:
    if not scripts:
        return [True] * len(tokens)
    table = script_table(scripts)
    marks = [None if text is None else _marks(table, text) for text in texts]
    is_wanted = [found is not None and WANTED in found and FOREIGN not in found for found in marks]
    partial = {token for token, text in zip(tokens, texts, strict=True) if text is None}
    if partial:
        lengths = sorted({len(token) for token in partial})
        wanted = (token for token, flag in zip(tokens, is_wanted, strict=True) if flag)
        used = {part for token in wanted for part in _parts(token, lengths)} & partial
        return [flag or token in used for token, flag in zip(tokens, is_wanted, strict=True)]
    return is_wanted


def _marks(table: npt.NDArray[np.uint8], text: str) -> set[int]:
    return set(table[np.frombuffer(text.encode("utf-32-le"), np.uint32)].tolist())


def _parts(token: str, lengths: Sequence[int]) -> Iterator[str]:
    for length in lengths:
        for start in range(len(token) - length + 1):
            yield token[start : start + length]
