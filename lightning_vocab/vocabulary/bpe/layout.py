"""What continued training needs to know of a BPE base: its kind, its barriers, its ids' text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lightning_vocab.vocabulary.backend_state import BackendState

BpeKind = Literal["byte-level", "byte-fallback"]

BLANK = "▁"
"""How SentencePiece-type vocabularies spell a blank."""

_CAN = (
    "Continued training needs a BPE tokenizer that can write every text: byte-level (GPT-2, Qwen, "
    "Llama 3) or SentencePiece-type with byte fallback (Llama 2, Phi-3)."
)


@dataclass(frozen=True)
class BpeLayout:
    """A BPE base, seen from its ids.

    Args:
        state: The tokenizer.
        kind: ``byte-level`` (a character of a token is a byte) or ``byte-fallback`` (a character is
            a character, and what the vocabulary lacks is written in byte tokens).
        tokens: Token of each id, ``""`` for an id without one.
        is_barrier: Ids that never take part in a merge, ``(num_ids,)``: added and special tokens,
            ``unk``, the byte tokens of byte fallback, tokens that are not spelled in bytes though
            the base is byte-level.
        byte_of: Byte of each byte-fallback token, -1 for all other ids, ``(num_ids,)``.
    """

    state: BackendState
    kind: BpeKind
    tokens: tuple[str, ...]
    is_barrier: npt.NDArray[np.bool_]
    byte_of: npt.NDArray[np.int16]

    @cached_property
    def taken(self) -> frozenset[str]:
        """Strings that no new token may have."""
        return frozenset(self.state.ids)

    @property
    def cuts_words(self) -> bool:
        """Whether a pre-tokenizer cuts texts into words that merges cannot cross."""
        return any(
            part["type"] != "Metaspace" or part["split"]
            for part in _parts(self.state.data["pre_tokenizer"], "pretokenizers")
        )

    @property
    def units_per_character(self) -> int:
        """The most units that one character can take: its UTF-8 bytes, or itself."""
        return 4 if self.kind == "byte-level" else 1

    def utf8(self, token: str) -> bytes:
        """Bytes of a text token, barriers aside; it may begin or end inside a character.

        Args:
            token: The token as the vocabulary spells it.
        """
        if self.kind == "byte-level":
            return bytes(_BYTE_OF_CHARACTER[char] for char in token)
        return token.replace(BLANK, " ").encode()

    def num_characters(self, token: str) -> int:
        """Characters of a token; a part of a character counts as one.

        Args:
            token: The token as the vocabulary spells it.
        """
        data = self.utf8(token)
        is_start = [byte & 0xC0 != 0x80 for byte in data]
        return sum(is_start) + (not is_start[0])

    def is_allowed(self, token: str) -> bool:
        """Whether a new token may be spelled so without being taken for something else.

        The ByteFallback decoder reads every six-byte token ``<0x..>`` as one byte, and blanks
        inside a token would let it cross words.

        Args:
            token: The token as the vocabulary would spell it.
        """
        if token in self.taken:
            return False
        if self.kind == "byte-level":
            return True
        looks_like_byte = len(token.encode()) == 6 and token.startswith("<0x") and token[-1] == ">"
        return not looks_like_byte and BLANK not in token[1:]


def read_layout(state: BackendState) -> BpeLayout:
    """The layout of a BPE base.

    Args:
        state: The tokenizer to be continued.

    Raises:
        ValueError: If the tokenizer is not of a kind that can be continued; the message says why.
    """
    kind = _kind(state)
    tokens = [""] * state.num_ids
    for token, i in state.ids.items():
        tokens[i] = token
    is_barrier = np.array([not token for token in tokens])
    is_barrier[[item["id"] for item in state.added_tokens]] = True
    if (unknown := state.ids.get(state.model["unk_token"])) is not None:
        is_barrier[unknown] = True
    byte_of = np.full(state.num_ids, -1, np.int16)
    if kind == "byte-level":
        strange = set("".join(tokens)) - _BYTE_OF_CHARACTER.keys()
        is_barrier |= np.array([not strange.isdisjoint(token) for token in tokens])
    else:
        ids = [state.ids[_byte_token(byte)] for byte in range(256)]
        is_barrier[ids] = True
        byte_of[ids] = np.arange(256)
    return BpeLayout(state, kind, tuple(tokens), is_barrier, byte_of)


def _kind(state: BackendState) -> BpeKind:
    model = state.model
    if model.get("type") != "BPE":
        advice = " Use ContinuedUnigram for it." if model.get("type") == "Unigram" else ""
        raise ValueError(
            f"{_CAN} This one is a {model.get('type')} model, which has no merges to continue."
            f"{advice}"
        )
    if model["dropout"]:
        raise ValueError(f"{_CAN} This one cuts text at random (dropout={model['dropout']}).")
    for affix in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model[affix]:
            raise ValueError(
                f"{_CAN} This one marks word parts with {affix}={model[affix]!r}, which a merged "
                "token would carry inside."
            )
    decoders = [part["type"] for part in _parts(state.data["decoder"], "decoders")]
    cutters = [part["type"] for part in _parts(state.data["pre_tokenizer"], "pretokenizers")]
    if "ByteLevel" in cutters and "ByteLevel" in decoders:
        return _complete(state, "byte-level", list(_BYTE_OF_CHARACTER))
    if model["byte_fallback"] and "ByteFallback" in decoders:
        return _complete(state, "byte-fallback", [_byte_token(byte) for byte in range(256)])
    raise ValueError(f"{_CAN} This one is neither: it loses characters that it does not know.")


def _complete(state: BackendState, kind: BpeKind, needed: list[str]) -> BpeKind:
    if missing := [token for token in needed if token not in state.model["vocab"]]:
        raise ValueError(
            f"{_CAN} This {kind} one lacks {len(missing)} of the 256 byte tokens (such as "
            f"{missing[0]!r}), so it loses text."
        )
    return kind


def _parts(component: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """The steps of a component, whether it is one, a sequence of them, or missing."""
    if component is None:
        return []
    if component["type"] != "Sequence":
        return [component]
    return [step for part in component[key] for step in _parts(part, key)]


def _byte_token(byte: int) -> str:
    return f"<0x{byte:02X}>"


def _byte_of_character() -> dict[str, int]:
    """The inverse of GPT-2's table, which spells each byte as one printable character."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in printable)
    return table | {chr(256 + k): byte for k, byte in enumerate(others)}


_BYTE_OF_CHARACTER = _byte_of_character()
