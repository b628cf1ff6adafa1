"""SentencePiece files that are whole, cut short or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_vocab.vocabulary.sentencepiece.proto import parse_model
from tests.vocabulary.sentencepiece.pieces import ENGLISH, proto_of, trained

REAL = (
    "tokenizers/llama2",
    "tokenizers/chinese-llama-sp20k",
    "tokenizers/storyllamas-4096",
    "lm/stories260K",
)


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_a_file_that_is_cut_anywhere_is_refused_by_name(model_type: str) -> None:
    content = trained(ENGLISH * 3, 300 if model_type == "bpe" else 40, model_type)
    assert parse_model(content, "whole.model") == proto_of(content)
    message = r"^'cut\.model' (looks|is not a SentencePiece model, or was) cut short|has no pieces"
    for length in range(len(content)):
        with pytest.raises(ValueError, match=message):
            parse_model(content[:length], "cut.model")


def test_a_cut_between_two_pieces_says_how_far_the_file_goes() -> None:
    proto = proto_of(trained(ENGLISH * 3, 300, "bpe"))
    content = proto.SerializeToString()
    del proto.pieces[290:]
    proto.ClearField("trainer_spec")
    proto.ClearField("normalizer_spec")
    cut = proto.SerializeToString()
    assert content.startswith(cut)
    with pytest.raises(ValueError, match=r"after 290 pieces its trainer_spec is missing"):
        parse_model(cut, "cut.model")


def test_a_file_whose_pieces_were_edited_is_read() -> None:
    proto = proto_of(trained(ENGLISH * 3, 300, "bpe"))
    proto.pieces.add(piece="more", score=-400.0, type=1)
    assert proto.trainer_spec.vocab_size == 300
    assert len(parse_model(proto.SerializeToString(), "edited.model").pieces) == 301


@pytest.mark.slow
@pytest.mark.assets
@pytest.mark.parametrize("name", REAL)
def test_real_files_are_read_whole_and_refused_when_cut(name: str, assets: Path) -> None:
    content = (assets / name / "tokenizer.model").read_bytes()
    assert len(parse_model(content, name).pieces) == proto_of(content).trainer_spec.vocab_size
    end = len(content)
    for length in (*range(1, end, end // 23), *range(end - 200, end)):
        with pytest.raises(ValueError, match="cut short"):
            parse_model(content[:length], name)
