"""Continued BPE of a base that writes unknown characters in byte tokens."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from lightning_vocab.vocabulary import ContinuedBPE, ExpandedTokenizer
from lightning_vocab.vocabulary.fingerprint import backend


def tokens_of(grown: ExpandedTokenizer) -> list[str]:
    return [token.token for token in grown.expansion.tokens]


def test_frequent_new_characters_become_tokens_first(
    fallback_tokenizer: PreTrainedTokenizerFast,
) -> None:
    grown = ContinuedBPE(4, character_coverage=0.9).extend(
        fallback_tokenizer, ["กข กข กข ก", "กขข", "ฃ"]
    )
    # ก and ข stand five times each (the lower code point first), ฃ once and beyond the coverage.
    assert tokens_of(grown) == ["ก", "ข", "▁ก", "▁กข"]
    byte_tokens = fallback_tokenizer.convert_tokens_to_ids(["<0xE0>", "<0xB8>", "<0x81>"])
    assert list(grown.expansion.tokens[0].pieces) == byte_tokens


def test_characters_below_min_frequency_stay_in_bytes(
    fallback_tokenizer: PreTrainedTokenizerFast,
) -> None:
    grown = ContinuedBPE(1, min_frequency=3).extend(fallback_tokenizer, ["กก", "ขขข"])
    assert tokens_of(grown) == ["ข"]
    assert grown.tokenizer.tokenize("ก") == ["▁", "<0xE0>", "<0xB8>", "<0x81>"]


def test_never_more_characters_than_new_tokens(fallback_tokenizer: PreTrainedTokenizerFast) -> None:
    grown = ContinuedBPE(2).extend(fallback_tokenizer, ["กขคง" * 3])
    assert len(grown.expansion.tokens) == 2


def test_ascii_byte_tokens_keep_their_ids(fallback_tokenizer: PreTrainedTokenizerFast) -> None:
    newline = fallback_tokenizer.convert_tokens_to_ids("<0x0A>")
    grown = ContinuedBPE(1).extend(fallback_tokenizer, ["ba\nba\n\n\n"] * 5).tokenizer
    assert grown.encode("\n").count(newline) == 1


def test_characters_of_two_and_four_bytes_become_tokens(
    fallback_tokenizer: PreTrainedTokenizerFast,
) -> None:
    grown = ContinuedBPE(2).extend(fallback_tokenizer, ["ééé 😀😀"])
    assert [(token.surface, len(token.pieces)) for token in grown.expansion.tokens] == [
        ("é", 2),
        ("😀", 4),
    ]


def test_blanks_stand_only_at_the_start_of_a_token(
    fallback_tokenizer: PreTrainedTokenizerFast,
) -> None:
    texts = ["be my guest be my guest", "    indented    line", "the   the   the"] * 4
    grown = ContinuedBPE(15).extend(fallback_tokenizer, texts)
    assert all("▁" not in token[1:] for token in tokens_of(grown))
    assert "▁be" in tokens_of(grown)


def test_letters_digits_and_punctuation_do_not_mix(
    fallback_tokenizer: PreTrainedTokenizerFast,
) -> None:
    grown = ContinuedBPE(2).extend(fallback_tokenizer, ["ab12!!", "ab12!!", "ab"])
    assert tokens_of(grown) == ["▁ab", "!!"]


def test_digits_stay_alone_where_the_base_splits_them(
    fallback_tokenizer: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(ValueError, match="Only 0 new tokens are possible"):
        ContinuedBPE(1).extend(fallback_tokenizer, ["1234 1234 1234"] * 5)


def test_text_that_spells_a_byte_token_never_becomes_one(
    fallback_tokenizer: PreTrainedTokenizerFast,
) -> None:
    text = "<0xE0><0x41><0xe0>"
    grown = ContinuedBPE(2).extend(fallback_tokenizer, [text] * 20 + ["bcd"] * 2).tokenizer
    assert grown.decode(grown.encode(text, add_special_tokens=False)) == text


def test_marks_stay_with_their_letters(fallback_tokenizer: PreTrainedTokenizerFast) -> None:
    grown = ContinuedBPE(6).extend(fallback_tokenizer, ["ที่"] * 4)
    assert {"ท", "ี", "่"} < set(tokens_of(grown))
    assert "▁ที่" in tokens_of(grown)


def test_no_merge_crosses_an_added_token(fallback_tokenizer: PreTrainedTokenizerFast) -> None:
    # The normalizer puts a blank in front of what follows an added token.
    grown = ContinuedBPE(3).extend(fallback_tokenizer, ["q</s>q</s>q</s>", "wv wv"])
    assert set(tokens_of(grown)) == {"▁q", "▁w", "▁wv"}


def test_scripts_hold_for_new_characters_too(fallback_tokenizer: PreTrainedTokenizerFast) -> None:
    texts = ["กข дд bb", "กข дд bb"]
    grown = ContinuedBPE(4, scripts=["Thai"]).extend(fallback_tokenizer, texts)
    assert set("".join(tokens_of(grown))) == set("▁กข")


def test_model_without_byte_tokens_is_refused(fallback_tokenizer: PreTrainedTokenizerFast) -> None:
    text = backend(fallback_tokenizer).to_str().replace("<0xE0>", "<0xE0x>")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=type(backend(fallback_tokenizer)).from_str(text)
    )
    with pytest.raises(ValueError, match="lacks 1 of the 256 byte tokens"):
        ContinuedBPE(1).extend(tokenizer, ["abc"])
