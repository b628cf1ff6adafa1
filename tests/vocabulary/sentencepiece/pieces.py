"""SentencePiece files made by hand and by the library's own trainer."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from transformers import PreTrainedTokenizerBase

from lightning_vocab.vocabulary import load_tokenizer

ENGLISH = (
    "the cat sat on the mat and the dog sat on the log",
    "a model of language reads the text and learns the tokens of the text",
    "what a day it was when the other cat was not there, said the dog",
)


def proto_of(content: bytes) -> Any:
    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    proto.ParseFromString(content)
    return proto


def write_pieces(
    path: Path,
    pieces: Sequence[str],
    *,
    model_type: int = 1,
    others: Sequence[tuple[str, int]] = (),
) -> str:
    """A model file with text pieces of falling scores, and others of a type each."""
    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    proto.trainer_spec.model_type = model_type
    proto.normalizer_spec.SetInParent()
    for k, piece in enumerate(pieces):
        proto.pieces.add(piece=piece, score=-float(k), type=1)
    for piece, kind in others:
        proto.pieces.add(piece=piece, score=0.0, type=kind)
    path.write_bytes(proto.SerializeToString())
    return str(path)


def trained(texts: Iterable[str], vocab_size: int, model_type: str) -> bytes:
    """What SentencePiece's own trainer makes of some texts."""
    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=content,
        vocab_size=vocab_size,
        model_type=model_type,
        byte_fallback=model_type == "bpe",
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
        num_threads=1,
    )
    return content.getvalue()


def load_beside(
    folder: Path, content: bytes, name: str, **config: object
) -> PreTrainedTokenizerBase:
    """The tokenizer that `AutoTokenizer` makes of a model file alone."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return load_tokenizer(folder)
