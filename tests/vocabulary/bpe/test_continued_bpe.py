from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lightning_vocab.vocabulary import ContinuedBPE, ExpandedTokenizer, fingerprint
from lightning_vocab.vocabulary.fingerprint import backend
from tests.conftest import make_tokenizer
from tests.vocabulary.bpe.reference_bpe import continued

CORPUS = [
    "lowest lower low lower newest newest widest tokens token tokenizer",
    "the newest tokens of the widest model, the lowest of the models",
    "déjà vu, déjà entendu; straße und straßen",
]


def merges_of(tokenizer: PreTrainedTokenizerBase) -> list[tuple[str, str]]:
    merges = json.loads(backend(tokenizer).to_str())["model"]["merges"]
    return [(left, right) for left, right in merges]


def new_merges(base: PreTrainedTokenizerBase, grown: ExpandedTokenizer) -> list[tuple[str, str]]:
    return merges_of(grown.tokenizer)[len(merges_of(base)) :]


def edited(tokenizer: PreTrainedTokenizerBase, **changes: Any) -> PreTrainedTokenizerFast:
    """A copy with another model: ``vocab`` is added to, everything else replaced."""
    data = json.loads(backend(tokenizer).to_str())
    data["model"]["vocab"] |= changes.pop("vocab", {})
    data["model"] |= changes
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(data)),
        bos_token="<|end|>",
        eos_token="<|end|>",
    )


def test_merges_are_those_of_the_plain_python_reference(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    grown = ContinuedBPE(40, min_frequency=1).extend(tokenizer, CORPUS)
    assert new_merges(tokenizer, grown) == continued(tokenizer, CORPUS, 40)


@settings(derandomize=True)
@given(texts=st.lists(st.text("abcde  éก่", min_size=20, max_size=80), min_size=3, max_size=6))
def test_merges_are_those_of_the_reference_on_any_text(texts: list[str]) -> None:
    tokenizer = make_tokenizer()
    grown = ContinuedBPE(5, min_frequency=1).extend(tokenizer, texts)
    assert new_merges(tokenizer, grown) == continued(tokenizer, texts, 5)


def test_one_new_token_is_the_most_frequent_pair(tokenizer: PreTrainedTokenizerFast) -> None:
    grown = ContinuedBPE(1).extend(tokenizer, ["xyxy xyz", "xy"])
    (token,) = grown.expansion.tokens
    assert (token.id, token.token, token.surface) == (300, "xy", "xy")
    assert token.pieces == (tokenizer.get_vocab()["x"], tokenizer.get_vocab()["y"])


def test_a_new_token_may_be_the_prefix_of_another(tokenizer: PreTrainedTokenizerFast) -> None:
    grown = ContinuedBPE(2).extend(tokenizer, ["xyz"] * 3 + ["xy"] * 2)
    assert [token.token for token in grown.expansion.tokens] == ["xy", "xyz"]
    assert grown.tokenizer.tokenize("xyz xy") == ["xyz", "Ġ", "xy"]


def test_same_text_gives_the_same_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    first, second = (ContinuedBPE(20).extend(tokenizer, CORPUS * 2) for _ in range(2))
    assert first.expansion == second.expansion


def test_base_tokenizer_is_left_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    before = fingerprint(tokenizer)
    ContinuedBPE(5).extend(tokenizer, CORPUS)
    assert fingerprint(tokenizer) == before


def test_texts_are_read_once_from_a_generator(tokenizer: PreTrainedTokenizerFast) -> None:
    def documents() -> Iterator[str]:
        yield from CORPUS

    from_generator = ContinuedBPE(8).extend(tokenizer, documents())
    assert from_generator.expansion == ContinuedBPE(8).extend(tokenizer, CORPUS).expansion


def test_empty_documents_change_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    with_empty = ContinuedBPE(8).extend(tokenizer, ["", *CORPUS, "", ""])
    assert with_empty.expansion == ContinuedBPE(8).extend(tokenizer, CORPUS).expansion


def test_many_batches_give_what_one_batch_gives(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = ContinuedBPE(20).extend(tokenizer, CORPUS * 3)
    monkeypatch.setattr("lightning_vocab.vocabulary.corpus.BATCH_CHARACTERS", 50)
    monkeypatch.setattr("lightning_vocab.vocabulary.bpe.spool._BLOCK", 7)
    assert ContinuedBPE(20).extend(tokenizer, CORPUS * 3).expansion == one.expansion


def test_combining_marks_decode_as_before(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "cafe\u0301 ที่นี่ n\u0303 ก\u0e49ำ"
    grown = ContinuedBPE(17).extend(tokenizer, [text] * 3).tokenizer
    assert grown.decode(grown.encode(text)) == text
    assert len(grown.encode(text)) < len(tokenizer.encode(text))


@pytest.mark.parametrize("texts", [[], ["", ""], iter(())], ids=["none", "empty", "iterator"])
def test_no_text_at_all_is_refused(
    tokenizer: PreTrainedTokenizerFast, texts: list[str] | Iterator[str]
) -> None:
    with pytest.raises(ValueError, match="no text to learn from"):
        ContinuedBPE(1).extend(tokenizer, texts)


def test_a_lone_surrogate_is_refused_with_its_document(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match=r"Document 2 holds a lone surrogate .* at character 3"):
        ContinuedBPE(1).extend(tokenizer, ["good", "ดี", "bad\ud800"])


def test_a_document_that_is_no_string_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    texts: list[Any] = ["good", {"text": "dict"}]
    with pytest.raises(TypeError, match="Document 1 must be a string, got dict"):
        ContinuedBPE(1).extend(tokenizer, texts)


def test_one_string_is_no_list_of_documents(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(TypeError, match="got one string"):
        ContinuedBPE(1).extend(tokenizer, "abc")


def test_too_many_tokens_are_refused_with_the_possible_number(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    # "xyz" and "xyw", twice each: (x, y), (xy, z), (xy, w) and nothing else.
    with pytest.raises(ValueError, match="Only 3 new tokens are possible, 4 were asked for"):
        ContinuedBPE(4).extend(tokenizer, ["xyz", "xyw"] * 2)


@pytest.mark.parametrize("name", ["num_new_tokens", "min_frequency", "max_token_length"])
@pytest.mark.parametrize("value", [0, -3])
def test_numbers_below_one_are_refused(name: str, value: int) -> None:
    arguments: dict[str, Any] = {"num_new_tokens": 1, name: value}
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got {value}"):
        ContinuedBPE(**arguments)


def test_base_rows_below_the_base_are_refused_before_any_work(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(ValueError, match="base_rows=299 is too small"):
        ContinuedBPE(1).extend(tokenizer, [], base_rows=299)


def test_new_ids_fall_on_padded_rows_first(tokenizer: PreTrainedTokenizerFast) -> None:
    expansion = ContinuedBPE(3).extend(tokenizer, CORPUS, base_rows=320).expansion
    assert expansion.new_ids == (300, 301, 302)
    assert (expansion.base_len, expansion.base_rows, expansion.num_rows) == (300, 320, 320)


def test_pairs_below_min_frequency_are_not_merged(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = ["xy"] * 3 + ["zw"] * 2
    with pytest.raises(ValueError, match="Only 1 new tokens are possible"):
        ContinuedBPE(2, min_frequency=3).extend(tokenizer, texts)


def test_no_token_is_longer_than_allowed(tokenizer: PreTrainedTokenizerFast) -> None:
    grown = ContinuedBPE(12, max_token_length=3).extend(tokenizer, ["zyxwvuzyxwvu", "กขคงจฉ"] * 9)
    assert max(len(token.surface) for token in grown.expansion.tokens) == 3


def test_training_goes_on_until_enough_merges_are_allowed(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    # "kj" is taken, and the whole long word builds on it: eight merges are left out.
    base = edited(tokenizer, vocab={"kj": 300})
    grown = ContinuedBPE(2).extend(base, ["zyxwvuqkj"] * 9 + ["xq"] * 3 + ["vk"] * 2)
    assert [token.token for token in grown.expansion.tokens] == ["xq", "vk"]


def test_a_taken_string_is_left_out_with_all_that_builds_on_it(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    # "xyz" exists but no merge leads to it, as 678 tokens of Llama 3.
    base = edited(tokenizer, vocab={"xyz": 300})
    grown = ContinuedBPE(3).extend(base, ["xyzw"] * 5 + ["xyzv"] * 2 + ["xyq"] * 3 + ["kj"] * 2)
    assert [token.token for token in grown.expansion.tokens] == ["xy", "xyq", "kj"]
    assert grown.tokenizer.tokenize("xyzw") == ["xy", "z", "w"]


def test_ignore_merges_stays_and_the_word_it_finds_too(tokenizer: PreTrainedTokenizerFast) -> None:
    base = edited(tokenizer, vocab={"xyz": 300}, ignore_merges=True)
    grown = ContinuedBPE(2).extend(base, ["xyzw"] * 5 + ["xyzv"] * 2 + ["xyq"] * 3).tokenizer
    assert grown.tokenize("xyz") == ["xyz"]
    assert grown.tokenize("xyq") == ["xyq"]


def test_added_tokens_in_the_text_are_never_merged(tokenizer: PreTrainedTokenizerFast) -> None:
    grown = ContinuedBPE(3).extend(tokenizer, ["xy<|end|>xy<|end|>zw<|end|>"] * 9 + ["qkj"] * 3)
    assert [token.token for token in grown.expansion.tokens[:2]] == ["xy", "zw"]
    assert all("<|" not in token.token for token in grown.expansion.tokens)


def test_added_tokens_behind_the_vocabulary_keep_their_ids(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenizer.add_tokens([AddedToken("<|tool|>", special=True), AddedToken("plain")])
    grown = ContinuedBPE(2).extend(tokenizer, ["xyz plain"] * 3)
    assert grown.expansion.new_ids == (302, 303)
    assert grown.tokenizer.convert_tokens_to_ids(["<|tool|>", "plain"]) == [300, 301]
    assert grown.tokenizer.encode("a<|tool|>plain") == tokenizer.encode("a<|tool|>plain")


def test_an_added_token_that_text_would_reach_is_refused(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    base = edited(tokenizer, ignore_merges=True)
    base.add_tokens([AddedToken("tool", special=True)])
    with pytest.raises(ValueError, match="'tool' cannot keep its id"):
        ContinuedBPE(1).extend(base, CORPUS)


def test_truncation_left_on_by_a_call_does_not_cut_the_corpus(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    expected = ContinuedBPE(10).extend(tokenizer, CORPUS).expansion
    tokenizer(CORPUS, truncation=True, max_length=2)
    assert ContinuedBPE(10).extend(tokenizer, CORPUS).expansion == expected
    assert backend(tokenizer).truncation is not None


def test_a_grown_tokenizer_can_grow_again(tokenizer: PreTrainedTokenizerFast) -> None:
    once = ContinuedBPE(10).extend(tokenizer, CORPUS * 2)
    first = ContinuedBPE(4).extend(tokenizer, CORPUS * 2)
    twice = ContinuedBPE(6).extend(first.tokenizer, CORPUS * 2)
    assert merges_of(twice.tokenizer) == merges_of(once.tokenizer)
    assert twice.expansion.base_fingerprint == first.expansion.tokenizer_fingerprint


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0), "Unigram model"),
        (models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"), "WordPiece model"),
        (models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"), "WordLevel model"),
        (models.BPE({"a": 0}, []), "loses characters"),
        (models.BPE({"a": 0}, [], dropout=0.1), "at random"),
        (models.BPE({"a": 0}, [], end_of_word_suffix="</w>"), "end_of_word_suffix"),
        (models.BPE({"a": 0}, [], continuing_subword_prefix="##"), "continuing_subword_prefix"),
    ],
    ids=lambda value: None if isinstance(value, models.Model) else value.replace(" ", "-"),
)
def test_other_kinds_are_refused_with_the_reason(model: models.Model, reason: str) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model))
    with pytest.raises(ValueError, match=reason):
        ContinuedBPE(1).extend(tokenizer, ["abc"])


def test_a_byte_level_vocabulary_without_all_bytes_is_refused(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    small = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    small.pre_tokenizer = pre_tokenizers.ByteLevel()
    small.decoder = backend(tokenizer).decoder
    with pytest.raises(ValueError, match=r"lacks 254 of the 256 byte tokens"):
        ContinuedBPE(1).extend(PreTrainedTokenizerFast(tokenizer_object=small), ["ab"])


@pytest.mark.slow
def test_only_words_of_the_scripts_give_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = ["the other other word", "ภาษาไทย ภาษาไทย", "mixภาษา mixภาษา", "!!!! !!!!"] * 5
    grown = ContinuedBPE(12, scripts=["Thai"]).extend(tokenizer, texts)
    words = {word for token in grown.expansion.tokens for word in token.surface if word.isalpha()}
    assert words
    assert words <= set("ภาษาไทย")


def test_an_unknown_script_is_refused() -> None:
    with pytest.raises(ValueError, match="Unknown script 'Siamese'"):
        ContinuedBPE(1, scripts=["Thai", "Siamese"])


def test_a_progress_bar_is_shown_when_asked_for(
    tokenizer: PreTrainedTokenizerFast, capsys: pytest.CaptureFixture[str]
) -> None:
    ContinuedBPE(1, progress=True).extend(tokenizer, CORPUS)
    assert "3 documents" in capsys.readouterr().err


def test_nothing_is_printed_where_stderr_is_no_terminal(
    tokenizer: PreTrainedTokenizerFast, capfd: pytest.CaptureFixture[str]
) -> None:
    ContinuedBPE(1).extend(tokenizer, CORPUS)
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


@pytest.mark.parametrize("name", ["num_new_tokens", "min_frequency", "max_token_length"])
@pytest.mark.parametrize("value", [2.5, True, "7", None])
def test_other_than_whole_numbers_are_refused(name: str, value: Any) -> None:
    settings: dict[str, Any] = {"num_new_tokens": 5, name: value}
    with pytest.raises(TypeError, match=f"{name} must be a whole number, got {value!r}"):
        ContinuedBPE(**settings)


@pytest.mark.parametrize("value", [True, "1", None])
def test_a_coverage_that_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="character_coverage must be a number"):
        ContinuedBPE(5, character_coverage=value)


def test_too_many_tokens_are_refused_with_the_settings_that_limit_them(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    extender = ContinuedBPE(10**4, min_frequency=2, max_token_length=9, scripts=["Latin"])
    settings = r"min_frequency=2, max_token_length=9, scripts=\['Latin'\], .*coverage=0.9995"
    remedy = "lower .* or min_frequency, raise .*, name more scripts, or give more text"
    with pytest.raises(ValueError, match=f"{settings}: {remedy}"):
        extender.extend(tokenizer, CORPUS)


def test_an_extender_of_the_same_name_elsewhere_has_not_built_it(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    expansion = ContinuedBPE(3).extend(tokenizer, CORPUS).expansion
    namesake = type("ContinuedBPE", (ContinuedBPE,), {"__module__": "another.package"})
    assert not namesake(3).has_built(expansion)


def test_description_tells_settings_apart(tokenizer: PreTrainedTokenizerFast) -> None:
    extender = ContinuedBPE(3, min_frequency=2, progress=False)
    expansion = extender.extend(tokenizer, CORPUS).expansion
    again = type(expansion).from_json(expansion.to_json())
    assert ContinuedBPE(3, progress=True).has_built(again)
    assert not ContinuedBPE(3, min_frequency=3).has_built(again)
    assert again.extender == {
        "class": "lightning_vocab.vocabulary.ContinuedBPE",
        "args": {
            "num_new_tokens": 3,
            "min_frequency": 2,
            "max_token_length": 32,
            "scripts": None,
            "character_coverage": 0.9995,
            "whole_characters_only": False,
            "exclude": None,
            "protected": None,
        },
    }
