"""SentencePiece files as they are placed, and bases that give none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from lightning_vocab.vocabulary import AddTokens, ExpandedTokenizer, save_expansion
from lightning_vocab.vocabulary.backend_state import reload_with
from lightning_vocab.vocabulary.fingerprint import backend
from lightning_vocab.vocabulary.sentencepiece.model import (
    grown_model,
    read_model_file,
    write_sentencepiece,
)
from lightning_vocab.vocabulary.sentencepiece.pieces import NoSentencePieceError, add_pieces
from tests.vocabulary.sentencepiece.pieces import proto_of


@pytest.fixture(scope="module")
def grown(base: PreTrainedTokenizerBase) -> ExpandedTokenizer:
    return AddTokens(["<|tool|>"]).extend(base)


def test_of_several_tokens_without_a_merge_the_same_one_is_named(
    base: PreTrainedTokenizerBase,
) -> None:
    proto = proto_of(read_model_file(base) or b"")
    names = [f"x{letter}q" for letter in "hgfedcb"]
    data = json.loads(backend(base).to_str())
    data["model"]["vocab"] |= {name: 300 + k for k, name in enumerate(names)}
    grown = reload_with(base, json.dumps(data))
    with pytest.raises(NoSentencePieceError, match=r"7 tokens that have no merge, such as 'xbq'"):
        add_pieces(proto, grown, range(300, 307))


def test_a_file_that_stands_there_is_replaced_only_when_asked_and_only_by_a_whole_one(
    grown: ExpandedTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "tokenizer.model"
    assert write_sentencepiece(grown, target) == target
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        write_sentencepiece(grown, target)
    target.write_bytes(b"former")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", failing)
        with pytest.raises(OSError, match="disk full"):
            write_sentencepiece(grown, target, overwrite=True)
    assert target.read_bytes() == b"former"
    write_sentencepiece(grown, target, overwrite=True)
    assert target.read_bytes() == grown_model(grown)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.model"]


def failing(*args: object) -> None:
    raise OSError("disk full")


def test_a_place_that_is_no_file_is_refused_before_any_work(
    grown: ExpandedTokenizer, tmp_path: Path
) -> None:
    with pytest.raises(FileExistsError, match="is a folder"):
        write_sentencepiece(grown, tmp_path, overwrite=True)
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        write_sentencepiece(grown, tmp_path / "no" / "tokenizer.model")


def test_a_base_s_file_that_is_cut_short_is_not_continued(
    grown: ExpandedTokenizer, content: bytes, tmp_path: Path
) -> None:
    whole = proto_of(content)
    whole.ClearField("trainer_spec")
    cut = ExpandedTokenizer(grown.tokenizer, grown.expansion, whole.SerializeToString())
    with pytest.raises(NoSentencePieceError, match=r"'tokenizer\.model' looks cut short"):
        grown_model(cut)
    with pytest.warns(UserWarning, match=r"No tokenizer\.model is written .* looks cut short"):
        path = save_expansion(cut, tmp_path / "grown")
    assert not (path / "tokenizer.model").exists()
