"""The manifest of a grown vocabulary: which ids are new, what they say, and what base they need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, get_args

from transformers import PreTrainedTokenizerBase

from lightning_vocab.vocabulary.plain_json import read_manifest, write_manifest

TokenKind = Literal["text", "special", "slot"]


@dataclass(frozen=True)
class NewToken:
    """One token that the base tokenizer does not have.

    Args:
        id: Row of the token in the embedding and in the head.
        token: The token as the tokenizer's vocabulary spells it (``Ġthe``, ``▁the``, ``<|tool|>``).
        surface: The text that the token stands for. U+FFFD marks a token that ends inside a
            character.
        kind: ``text`` (reached by merges), ``special`` (a protocol token matched before everything
            else, special or plain) or ``slot`` (an id that had a row but no text of its own).
        pieces: The ids into which the base tokenizer cuts the token.

    Raises:
        ValueError: If the id is negative, the token or its pieces are empty, a piece is the token
            itself, or the kind is unknown.

    Example:
        >>> NewToken(id=300, token="Ġcats", surface=" cats", kind="text", pieces=(262, 82)).pieces
        (262, 82)
    """

    id: int
    token: str
    surface: str
    kind: TokenKind
    pieces: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.id < 0:
            raise ValueError(f"The id of a new token must not be negative, got {self.id}.")
        if not self.token:
            raise ValueError(f"New token {self.id} has an empty string.")
        if self.kind not in get_args(TokenKind):
            raise ValueError(
                f"New token {self.id} ({self.token!r}) has kind {self.kind!r}: expected one of "
                f"{', '.join(get_args(TokenKind))}."
            )
        if not self.pieces or min(self.pieces) < 0 or self.id in self.pieces:
            raise ValueError(
                f"New token {self.id} ({self.token!r}) needs the base ids it is cut into, at least "
                f"one and never its own: got pieces {self.pieces}."
            )


@dataclass(frozen=True)
class VocabularyExpansion:
    """What was added to which base; `vocab_expansion.json` holds exactly this.

    Args:
        base_len: ``len(base_tokenizer)``.
        base_rows: Height of the base model's embedding matrix (at least ``base_len``).
        num_rows: Rows that the grown model needs at least: room for every id, never below
            ``base_rows``.
        tokens: The new tokens in ascending order of id.
        base_fingerprint: Fingerprint of the base tokenizer.
        tokenizer_fingerprint: Fingerprint of the grown tokenizer.
        extender: How the tokenizer was grown: the extender's class with its module, its arguments,
            and what it reports.
        created_with: Versions of the packages that built it.

    Raises:
        ValueError: If there is no token, ids are not ascending and distinct, two tokens are spelled
            alike, a piece is a new id or has no base row, or a row is missing.

    Example:
        >>> token = NewToken(id=300, token="Ġcats", surface=" cats", kind="text", pieces=(262, 82))
        >>> expansion = VocabularyExpansion(300, 300, 301, (token,), "a", "b", {}, {})
        >>> VocabularyExpansion.from_json(expansion.to_json()) == expansion
        True
    """

    base_len: int
    base_rows: int
    num_rows: int
    tokens: tuple[NewToken, ...]
    base_fingerprint: str
    tokenizer_fingerprint: str
    extender: Mapping[str, Any]
    created_with: Mapping[str, str]

    def __post_init__(self) -> None:
        self._check_rows()
        self._check_tokens()

    @property
    def new_ids(self) -> tuple[int, ...]:
        """Ids of the new rows, ascending: a set of ids, never "everything from some id on"."""
        return tuple(token.id for token in self.tokens)

    def to_json(self) -> str:
        """The manifest as JSON text: plain values, a schema version, keys in a fixed order.

        Raises:
            ValueError: If a value is not plain JSON or holds a lone surrogate.
        """
        return write_manifest(self)

    @classmethod
    def from_json(cls, text: str) -> VocabularyExpansion:
        """The manifest that `to_json` wrote.

        Args:
            text: The content of ``vocab_expansion.json``.

        Raises:
            ValueError: If the text is not JSON, its schema version is unknown, or a field is
                missing, unknown or of the wrong type; the message names the field.
        """
        fields, tokens = read_manifest(text, manifest=cls, token=NewToken)
        return cls(**{**fields, "tokens": tuple(NewToken(**token) for token in tokens)})

    def _check_rows(self) -> None:
        if not 0 < self.base_len <= self.base_rows <= self.num_rows:
            raise ValueError(
                "Expected 0 < base_len <= base_rows <= num_rows, got "
                f"base_len={self.base_len}, base_rows={self.base_rows}, num_rows={self.num_rows}."
            )
        if not self.tokens:
            raise ValueError("An expansion needs at least one new token, got none.")
        if self.tokens[-1].id >= self.num_rows:
            raise ValueError(
                f"New token {self.tokens[-1].id} has no row: num_rows is {self.num_rows}."
            )

    def _check_tokens(self) -> None:
        ids = self.new_ids
        for left, right in pairwise(ids):
            if left >= right:
                raise ValueError(
                    f"Ids of new tokens must be ascending and distinct, got {right} after {left}."
                )
        if len({token.token for token in self.tokens}) < len(ids):
            raise ValueError("Two new tokens are spelled alike: each needs a string of its own.")
        new = set(ids)
        for token in self.tokens:
            if max(token.pieces) >= self.base_rows or not new.isdisjoint(token.pieces):
                raise ValueError(
                    f"Pieces of new token {token.id} ({token.token!r}) must be base ids below "
                    f"{self.base_rows}, got {token.pieces}."
                )


@dataclass(frozen=True)
class ExpandedTokenizer:
    """A grown tokenizer together with the manifest that says how it differs from its base.

    Args:
        tokenizer: The grown tokenizer. Old ids mean in it what they mean in the base.
        expansion: The manifest.
        sentencepiece: Content of the SentencePiece file of the base, or of the grown tokenizer if
            it was loaded beside one; None where the base has none.
    """

    tokenizer: PreTrainedTokenizerBase
    expansion: VocabularyExpansion
    sentencepiece: bytes | None = field(default=None, repr=False, compare=False)
