"""The pieces of a grown tokenizer in a SentencePiece model, scored in order of its merges."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase

from lightning_vocab.vocabulary.collector import collector_paused
from lightning_vocab.vocabulary.fingerprint import backend
from lightning_vocab.vocabulary.sentencepiece.proto import (
    BPE,
    CONTROL,
    NORMAL,
    UNIGRAM,
    UNUSED,
    USER_DEFINED,
)

_EXACT = 2.0**24
"""Up to here every whole number is a float32."""


class NoSentencePieceError(ValueError):
    """A tokenizer cannot be written as a SentencePiece file."""


@dataclass(frozen=True)
class _Grown:
    """A tokenizer's tokens by id, its added tokens by id, and its model as JSON."""

    tokens: Mapping[int, str]
    added: Mapping[int, AddedToken]
    model: Mapping[str, Any]


def _read(tokenizer: PreTrainedTokenizerBase) -> _Grown:
    found = backend(tokenizer)
    tokens = {i: token for token, i in found.get_vocab(with_added_tokens=True).items()}
    with collector_paused():
        model = json.loads(found.to_str())["model"]
    return _Grown(tokens, found.get_added_tokens_decoder(), model)


def add_pieces(
    proto: Any, tokenizer: PreTrainedTokenizerBase, new: Collection[int]
) -> frozenset[int]:
    """Give every id of a grown tokenizer its piece.

    Args:
        proto: ``ModelProto`` of the base, or of the grown tokenizer itself; it is changed.
        tokenizer: The grown tokenizer.
        new: Ids of the tokens that the base does not have.

    Returns:
        Ids of the text pieces that the file did not have.

    Raises:
        NoSentencePieceError: If the file is not the base's, or SentencePiece would not do what the
            new merges do.
    """
    grown = _read(tokenizer)
    _check_kind(proto, grown)
    written = _place(proto, grown, new)
    _score(proto, grown, written)
    return frozenset(written)


def _check_kind(proto: Any, grown: _Grown) -> None:
    expected = {BPE: "BPE", UNIGRAM: "Unigram"}.get(proto.trainer_spec.model_type, "other")
    found = grown.model.get("type")
    if expected != found:
        raise NoSentencePieceError(
            f"The SentencePiece file holds a model of kind {expected}, the tokenizer is a {found}: "
            "they cut text in different ways."
        )


def _place(proto: Any, grown: _Grown, new: Collection[int]) -> list[int]:
    """Give every id its piece.

    Returns:
        Ids of the text pieces that are new in the file.
    """
    num_old, written = len(proto.pieces), []
    for i in range(max(max(grown.tokens) + 1, num_old)):
        token = grown.tokens.get(i)
        piece = proto.pieces[i] if i < num_old else proto.pieces.add()
        if i < num_old and _says(piece, token):
            continue
        if i not in new and (i < num_old or not (token is None or i in grown.added)):
            raise NoSentencePieceError(
                f"The SentencePiece file is not the base's: its piece {i} is {piece.piece!r}, the "
                f"base's token is {token!r}."
            )
        piece.piece = f"<unused id {i}>" if token is None else token
        piece.score = 0.0
        if i in grown.added:
            piece.type = CONTROL if grown.added[i].special else USER_DEFINED
        elif token is None:
            piece.type = UNUSED
        else:
            piece.type = NORMAL
            written.append(i)
    return written


def _says(piece: Any, token: str | None) -> bool:
    return bool(piece.type == UNUSED if token is None else piece.piece == token)


def _score(proto: Any, grown: _Grown, written: Sequence[int]) -> None:
    if grown.model["type"] == "Unigram":
        scores = _unigram_scores(proto, grown, written)
    else:
        scores = _merge_scores(proto, grown, written)
    for i, score in scores.items():
        proto.pieces[i].score = score


def _unigram_scores(proto: Any, grown: _Grown, written: Sequence[int]) -> dict[int, float]:
    """Scores of the new text pieces.

    Raises:
        NoSentencePieceError: If a score is none that the file can hold: cuts would change.
    """
    scores = {i: score for i, (_, score) in enumerate(grown.model["vocab"])}
    held = {i: proto.pieces[i].score for i in scores if proto.pieces[i].type == NORMAL}
    held |= {i: float(np.float32(scores[i])) for i in written}
    if changed := [i for i in held if held[i] != scores[i]]:
        raise NoSentencePieceError(
            f"SentencePiece stores scores in single precision, and {len(changed)} scores of the "
            f"tokenizer need more or are not the file's, such as {scores[changed[0]]!r} of "
            f"{grown.tokens[changed[0]]!r}: close cuts would come out otherwise."
        )
    return {i: held[i] for i in written}


def _merge_scores(proto: Any, grown: _Grown, written: Sequence[int]) -> dict[int, float]:
    """Scores of the new text pieces, falling in order of their merges, below all others."""
    tokens = [proto.pieces[i].piece for i in written]
    rank = _ranks(grown, frozenset(tokens))
    order = sorted(written, key=lambda i: rank.get(proto.pieces[i].piece, -1))
    others = set(range(len(proto.pieces))) - set(written)
    lowest = min(0.0, min(proto.pieces[i].score for i in others))
    step = 1.0
    if len(order) - lowest >= _EXACT:
        # Where float32 has gaps, steps of twice the lowest score's gap stay distinct.
        step = float(np.spacing(np.float32(-2.0 * lowest)))
    start = np.floor(lowest / step)
    return {i: float((start - 1 - k) * step) for k, i in enumerate(order)}


def _ranks(grown: _Grown, new: frozenset[str]) -> dict[str, int]:
    """Place of each new token's merge, if SentencePiece would do the same without a list of merges.

    Raises:
        NoSentencePieceError: If a new token has several merges or none, or one before those of its
            parts, or an old token has a merge of a new one.
    """
    rank: dict[str, int] = {}
    for place, (left, right) in enumerate(grown.model["merges"]):
        token = left + right
        parts = {left, right} & new
        if token not in new and not parts:
            continue
        if token not in new or token in rank or not all(_is_made(part, rank) for part in parts):
            raise NoSentencePieceError(
                f"SentencePiece would not follow merge {place} ({left!r} + {right!r}): it needs "
                "one merge for each new token, behind those of its parts."
            )
        rank[token] = place
    if unmade := sorted(token for token in new if not _is_made(token, rank)):
        raise NoSentencePieceError(
            f"SentencePiece would make {len(unmade)} tokens that have no merge, such as "
            f"{unmade[0]!r}."
        )
    return rank


def _is_made(token: str, rank: Mapping[str, int]) -> bool:
    return len(token) == 1 or token in rank
