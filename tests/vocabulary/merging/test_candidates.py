"""What of a second tokenizer is asked for, and what is counted as left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from lightning_vocab.vocabulary.merging.candidates import TWICE
from lightning_vocab.vocabulary.merging.merge_tokenizer import MergeTokenizer
from lightning_vocab.vocabulary.merging.other_vocabulary import read_other
from tests.vocabulary.sentencepiece.pieces import write_pieces


def test_a_token_that_the_base_spells_like_another_one_is_counted(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    path = write_pieces(tmp_path / "m.model", ["zq", "▁zq", "at", " zq"])
    grown = MergeTokenizer(path).extend(tokenizer)
    assert [token.token for token in grown.expansion.tokens] == ["zq", "Ġzq"]
    assert grown.expansion.extender["report"] == {
        "taken": 2,
        "in_base": 1,
        "left_out": {TWICE: 1},
        "left_out_tokens": {TWICE: [" zq"]},
    }


@pytest.mark.parametrize("name", ["no-such-folder/tokenizer.model", "typo.model", "~/typo.model"])
def test_a_file_that_does_not_exist_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"no SentencePiece file '{name}'"):
        read_other(name)
