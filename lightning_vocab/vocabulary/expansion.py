"""The manifest of a grown vocabulary: which ids are new, what they say, and which base they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

TokenKind = Literal["text", "special", "slot"]


@dataclass(frozen=True)
class NewToken:
    """One token that the base tokenizer does not have.

    Args:
        id: Row of the token in the embedding and in the head.
        token: The token as the tokenizer's vocabulary spells it (``Ġthe``, ``▁the``, ``<|tool|>``).
        surface: The text that the token stands for. U+FFFD marks a token that ends inside a character.
        kind: ``text`` (reached by merges), ``special`` (a protocol token matched before everything
            else, special or plain) or ``slot`` (an id that had a row but no text of its own).
        pieces: The ids into which the base tokenizer cuts the token.
    """

    id: int
    token: str
    surface: str
    kind: TokenKind
    pieces: tuple[int, ...]


@dataclass(frozen=True)
class VocabularyExpansion:
    """What was added to which base; `vocab_expansion.json` holds exactly this.

    Args:
        base_len: ``len(base_tokenizer)``.
        base_rows: Height of the base model's embedding matrix (at least ``base_len``).
        num_rows: Rows that the grown model needs at least: room for every id, never below ``base_rows``.
        tokens: The new tokens in ascending order of id.
        base_fingerprint: Fingerprint of the base tokenizer.
        tokenizer_fingerprint: Fingerprint of the grown tokenizer.
        extender: How the tokenizer was grown: the extender's class name and its arguments.
        created_with: Versions of the packages that built it.
    """

    base_len: int
    base_rows: int
    num_rows: int
    tokens: tuple[NewToken, ...]
    base_fingerprint: str
    tokenizer_fingerprint: str
    extender: Mapping[str, Any]
    created_with: Mapping[str, str]

    @property
    def new_ids(self) -> tuple[int, ...]:
        """Ids of the new rows, ascending: a set of ids, never "everything from some id on"."""
        return tuple(token.id for token in self.tokens)


@dataclass(frozen=True)
class ExpandedTokenizer:
    """A grown tokenizer together with the manifest that says how it differs from its base.

    Args:
        tokenizer: The grown tokenizer. Old ids mean in it what they mean in the base.
        expansion: The manifest.
    """

    tokenizer: PreTrainedTokenizerBase
    expansion: VocabularyExpansion
