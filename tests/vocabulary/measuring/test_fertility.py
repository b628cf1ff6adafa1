"""Fertility against counts by hand, with a tokenizer whose tokens are plain to see."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lightning_vocab.vocabulary.measuring.fertility import (
    FertilityComparison,
    compare_fertility,
    encode_batch,
)
from lightning_vocab.vocabulary.measuring.text_fertility import TextFertility

LETTERS = {letter: id_ for id_, letter in enumerate("abcd é_ก你")}


def by_letters(*merges: tuple[str, str]) -> PreTrainedTokenizerFast:
    """A token a character, and one more for each merge."""
    vocab = LETTERS | {a + b: len(LETTERS) + rank for rank, (a, b) in enumerate(merges)}
    backend = Tokenizer(models.BPE(vocab, list(merges)))
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="_", eos_token="_")


AB = len(LETTERS)
BASE = by_letters()
GROWN = by_letters(("a", "b"), ("c", "d"))


def fertility_of(*texts: str) -> TextFertility:
    return compare_fertility(BASE, BASE, texts).before


def test_tokens_are_counted_before_and_after_growth() -> None:
    found = compare_fertility(BASE, GROWN, ["ab cd", "abab"])
    assert (found.before.num_tokens, found.after.num_tokens) == (9, 5)


def test_start_and_end_tokens_are_not_counted() -> None:
    assert encode_batch(BASE, ["ab", ""]) == [[0, 1], []]


def test_characters_are_code_points_and_bytes_are_utf8() -> None:
    size = fertility_of("é a", "ก").size
    assert (size.num_documents, size.num_characters, size.num_bytes) == (2, 4, 7)


def test_tokens_by_word_character_and_byte() -> None:
    found = fertility_of("ab é")
    assert found.tokens_per_word == 4 / 2
    assert found.tokens_per_character == 4 / 4
    assert found.tokens_per_byte == 4 / 5


def test_signs_alone_are_no_word() -> None:
    assert fertility_of("ab __ cd -").size.num_words == 2


def test_no_word_reaches_from_one_document_to_the_next() -> None:
    assert fertility_of("ab", "cd").size.num_words == 2


@pytest.mark.parametrize("text", ["กกก ab", "你你你 cd"])
def test_script_without_blanks_has_no_words(text: str) -> None:
    found = fertility_of(text)
    assert found.size.num_words is None
    assert found.tokens_per_word is None


def test_few_characters_of_a_script_without_blanks_leave_the_words() -> None:
    assert fertility_of("ก ab cd").size.num_words == 3


def test_effective_context_is_the_bytes_that_a_block_holds() -> None:
    assert fertility_of("ab é").effective_context_bytes(block_size=8) == 10.0


@pytest.mark.parametrize(
    ("texts", "share"),
    [(["cab"], 0.5), (["ab cd"], 1.0), (["ba"], 0.0)],
    ids=lambda value: str(value),
)
def test_share_of_new_tokens_in_use(texts: list[str], share: float) -> None:
    found = compare_fertility(BASE, GROWN, texts, new_ids=(AB, AB + 1))
    assert found.new_tokens_in_use_share == share


def test_share_is_unknown_without_new_tokens() -> None:
    assert compare_fertility(BASE, BASE, ["ab"]).new_tokens_in_use_share is None


def test_batches_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["ab cd", "é", "กก", "a b c"]
    at_once = compare_fertility(BASE, GROWN, texts, (AB,))
    monkeypatch.setattr("lightning_vocab.vocabulary.measuring.text_size._BATCH_CHARACTERS", 3)
    assert compare_fertility(BASE, GROWN, texts, (AB,)) == at_once


def test_text_is_read_once() -> None:
    assert compare_fertility(BASE, GROWN, iter(["ab", "cd"])).before.num_tokens == 4


def test_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected text to measure"):
        compare_fertility(BASE, GROWN, [])


def test_comparison_is_plain_json() -> None:
    found = compare_fertility(BASE, GROWN, ["ab cd"], (AB, AB + 1)).to_dict(block_size=10)
    assert json.loads(json.dumps(found)) == found
    assert found["after"] == {
        "num_tokens": 3,
        "tokens_per_word": 1.5,
        "tokens_per_grapheme": 0.6,
        "tokens_per_character": 0.6,
        "tokens_per_byte": 0.6,
        "effective_context_bytes": 10 / 0.6,
    }


def test_comparison_without_words_says_so_in_json() -> None:
    found: FertilityComparison = compare_fertility(BASE, GROWN, ["กก"])
    assert found.to_dict(block_size=10)["before"]["tokens_per_word"] is None
