"""SentencePiece models as protocol buffers."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from sentencepiece import sentencepiece_model_pb2

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Types of a piece."""

PIECE_KINDS = {
    NORMAL: "text",
    UNKNOWN: "special",
    CONTROL: "special",
    USER_DEFINED: "user-defined",
    UNUSED: "unused",
    BYTE: "byte",
}
"""What a piece of each type is called in a report."""

UNIGRAM, BPE = 1, 2
"""Types of a model that have an order of pieces; words and characters are the others."""


_SETTINGS = ("trainer_spec", "normalizer_spec")


def parse_model(content: bytes, name: str) -> Any:
    """The ``ModelProto`` in the content of a ``.model`` file.

    Args:
        content: The file's bytes.
        name: What the file is called in an error.

    Raises:
        ValueError: If the content is no SentencePiece model, or the end of one is missing.
    """
    # The module builds its classes when it is imported.
    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise ValueError(
            f"{name!r} is not a SentencePiece model, or was cut short: {error}."
        ) from error
    if not proto.pieces:
        raise ValueError(f"{name!r} is not a SentencePiece model: it has no pieces.")
    # Between two pieces a part of a file parses, too, and would pass for a Unigram model. The
    # settings stand behind the pieces and are in every file that the library has written.
    if missing := [part for part in _SETTINGS if not proto.HasField(part)]:
        raise ValueError(
            f"{name!r} looks cut short: after {len(proto.pieces)} pieces its {missing[0]} is "
            "missing. Copy or download the file again."
        )
    return proto


def forget_samples(proto: Any) -> None:
    """Remove the samples of cut text that a file may hold: a changed model would not load by them.

    Args:
        proto: A ``ModelProto``.
    """
    if "self_test_data" in proto.DESCRIPTOR.fields_by_name:
        proto.ClearField("self_test_data")
    # Later versions of the library do not know the field, but keep it.
    proto.DiscardUnknownFields()
