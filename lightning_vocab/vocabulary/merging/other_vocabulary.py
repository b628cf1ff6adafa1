"""The tokens of a second tokenizer, best first, in the spelling of a base."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import decoders, pre_tokenizers

from lightning_vocab.vocabulary.backend_state import BackendState, read_state
from lightning_vocab.vocabulary.bpe.layout import BLANK, BpeKind
from lightning_vocab.vocabulary.fingerprint import fingerprint
from lightning_vocab.vocabulary.folder import load_tokenizer
from lightning_vocab.vocabulary.sentencepiece.proto import NORMAL, PIECE_KINDS, parse_model

Spelling = Literal["byte-level", "blank"]
"""A character is a byte, or itself with ``▁`` for a blank."""

_CAN = (
    "The tokenizer to merge must be a SentencePiece file (.model) of kind BPE or Unigram, or a "
    "Hugging Face folder with a byte-level BPE, a SentencePiece-type BPE or a Unigram model."
)


@dataclass(frozen=True)
class OtherVocabulary:
    """What a second tokenizer can give.

    Args:
        spelling: How its tokens are spelled.
        tokens: Its text tokens: of a BPE in order of their merges, of a Unigram model the likeliest
            first.
        left_out: Number of its other tokens by kind: special, byte, unused ….
        fingerprint: SHA-256 of the file, or the fingerprint of the folder's tokenizer.
    """

    spelling: Spelling
    tokens: tuple[str, ...]
    left_out: Mapping[str, int]
    fingerprint: str


def read_other(path: str | os.PathLike[str]) -> OtherVocabulary:
    """The text tokens of a SentencePiece file or of a Hugging Face folder.

    A folder without a ``tokenizer.json`` is read from the one ``.model`` file in it, if there is
    one: what a Unigram file becomes in a class that expects a BPE is another tokenizer.

    Args:
        path: The file or the folder.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If it holds a tokenizer of another kind; the message says which are read.
    """
    place = Path(path).expanduser()
    if place.is_file():
        return _of_sentencepiece(place)
    if place.suffix == ".model" and not place.exists():
        # No tokenizer on the hub is called like a file: it would be looked for there, at length.
        raise FileNotFoundError(f"There is no SentencePiece file {str(path)!r}.")
    models = sorted(place.glob("*.model")) if place.is_dir() else []
    if len(models) == 1 and not (place / "tokenizer.json").is_file():
        return _of_sentencepiece(models[0])
    return _of_folder(str(path))


def respell(tokens: Sequence[str], spelling: Spelling, kind: BpeKind) -> list[str | None]:
    """The tokens as a base spells them, None for one that it cannot spell.

    Args:
        tokens: Tokens of another vocabulary.
        spelling: How they are spelled.
        kind: Kind of the base. One with byte fallback cannot spell a part of a character, nor the
            character ``▁`` itself.
    """
    if kind == "byte-level":
        if spelling == "byte-level":
            return list(tokens)
        return [_as_bytes(token.replace(BLANK, " ")) for token in tokens]
    if spelling == "blank":
        return list(tokens)
    texts = [as_text(token, spelling) for token in tokens]
    return [None if text is None or BLANK in text else text.replace(" ", BLANK) for text in texts]


def as_text(token: str, spelling: Spelling) -> str | None:
    """The text that a token stands for, None if it begins or ends inside a character.

    Args:
        token: The token.
        spelling: How it is spelled.
    """
    if spelling == "blank":
        return token.replace(BLANK, " ")
    text: str = _BYTE_DECODER.decode([token])
    return text if _as_bytes(text) == token else None


_BYTE_DECODER = decoders.ByteLevel()
_BYTE_SPELLER = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def _as_bytes(text: str) -> str:
    return "".join(word for word, _ in _BYTE_SPELLER.pre_tokenize_str(text))


def _of_sentencepiece(path: Path) -> OtherVocabulary:
    content = path.read_bytes()
    proto = parse_model(content, str(path))
    if proto.trainer_spec.model_type not in (1, 2):
        raise ValueError(f"{_CAN} {str(path)!r} is a word or character model.")
    if proto.trainer_spec.treat_whitespace_as_suffix:
        raise ValueError(
            f"{_CAN} {str(path)!r} writes blanks at the end of words, which no base here does."
        )
    kinds = [PIECE_KINDS[piece.type] for piece in proto.pieces]
    is_text = [kind == PIECE_KINDS[NORMAL] for kind in kinds]
    tokens = list(compress((piece.piece for piece in proto.pieces), is_text))
    scores = compress((piece.score for piece in proto.pieces), is_text)
    left_out = Counter(compress(kinds, [not flag for flag in is_text]))
    digest = hashlib.sha256(content).hexdigest()
    return OtherVocabulary("blank", _best_first(tokens, list(scores)), left_out, digest)


def _of_folder(path: str) -> OtherVocabulary:
    state = read_state(load_tokenizer(path))
    spelling = _spelling(state, path)
    special = {item["content"] for item in state.added_tokens} | {state.model.get("unk_token")}
    tokens = [token for token in state.ids if token not in special]
    left_out = Counter(special=len(state.ids) - len(tokens))
    if spelling == "blank":
        bytes_ = {f"<0x{byte:02X}>" for byte in range(256)}.intersection(tokens)
        tokens = [token for token in tokens if token not in bytes_]
        left_out["byte"] = len(bytes_)
    scores = _scores(state)
    ordered = _best_first(tokens, [scores[token] for token in tokens])
    return OtherVocabulary(spelling, ordered, left_out, fingerprint(state.tokenizer))


def _spelling(state: BackendState, path: str) -> Spelling:
    model, decoder = state.model, state.data["decoder"]
    kind = model.get("type")
    marks = [model.get(key) for key in ("continuing_subword_prefix", "end_of_word_suffix")]
    steps = _steps(decoder)
    if kind == "BPE" and not any(marks) and "ByteLevel" in steps:
        return "byte-level"
    if kind in ("BPE", "Unigram") and not any(marks) and {"Metaspace", "Replace"} & set(steps):
        return "blank"
    raise ValueError(f"{_CAN} {path!r} holds a {kind} model that is decoded by {steps}.")


def _steps(decoder: dict[str, Any] | None) -> list[str]:
    if decoder is None:
        return []
    return [step["type"] for step in decoder.get("decoders", [decoder])]


def _scores(state: BackendState) -> dict[str, float]:
    """Higher is better; tokens that no merge makes stand first (characters) or last (words)."""
    model = state.model
    if model["type"] == "Unigram":
        return dict(model["vocab"])
    made: dict[str, float] = {}
    for rank, (left, right) in enumerate(model["merges"]):
        made.setdefault(left + right, -float(rank))
    last = -float(len(model["merges"]))
    return {token: made.get(token, 0.5 if len(token) == 1 else last) for token in state.ids}


def _best_first(tokens: Sequence[str], scores: Sequence[float]) -> tuple[str, ...]:
    order = np.argsort(-np.array(scores, np.float64), kind="stable")
    return tuple(tokens[k] for k in order)
