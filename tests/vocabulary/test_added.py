from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer

from lightning_vocab.vocabulary import (
    AddTokens,
    ContinuedBPE,
    fingerprint,
    load_tokenizer,
    save_expansion,
)
from lightning_vocab.vocabulary.fingerprint import backend
from tests.conftest import case

FOLDERS = (
    case("tokenizers/gpt2", False, False, quick=False),
    case("tokenizers/llama2", False, False, quick=False),
    case("tokenizers/phi3-mini", True, True, quick=False),
    case("tokenizers/t5-small", True, True, quick=False),
    case("lm/stories260K", False, True, quick=True),
)


def test_tokens_get_the_next_free_ids_in_order(tokenizer: PreTrainedTokenizerFast) -> None:
    expansion = AddTokens(["<|b|>", "<|a|>"]).extend(tokenizer).expansion
    assert [(token.id, token.token) for token in expansion.tokens] == [
        (300, "<|b|>"),
        (301, "<|a|>"),
    ]
    assert {token.kind for token in expansion.tokens} == {"special"}


def test_pieces_are_what_the_base_makes_of_the_text(tokenizer: PreTrainedTokenizerFast) -> None:
    (token,) = AddTokens(["<|the cat|>"]).extend(tokenizer).expansion.tokens
    assert token.surface == "<|the cat|>"
    assert list(token.pieces) == tokenizer.encode("<|the cat|>")


def test_tokens_are_found_inside_words_and_old_text_is_cut_as_before(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    grown = AddTokens(["<|x|>"]).extend(tokenizer).tokenizer
    the, cat = tokenizer.encode("the"), tokenizer.encode(" cat")
    assert grown.encode("the<|x|> cat") == [*the, 300, *cat]


@pytest.mark.parametrize(("special", "text"), [(True, "ab"), (False, "a<|x|>b")])
def test_special_tokens_alone_are_skipped_when_decoding(
    special: bool, text: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    grown = AddTokens(["<|x|>"], special=special).extend(tokenizer).tokenizer
    assert grown.decode(grown.encode("a<|x|>b"), skip_special_tokens=True) == text


def test_duplicates_and_known_tokens_are_reported_and_recorded(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    extender = AddTokens(["<|x|>", "<|end|>", "<|x|>"])
    with (
        pytest.warns(UserWarning, match=r"more than once: \['<\|x\|>'\]"),
        pytest.warns(UserWarning, match=r"in the base: \['<\|end\|>'\]"),
    ):
        expansion = extender.extend(tokenizer).expansion
    assert expansion.new_ids == (300,)
    assert expansion.extender["report"] == {
        "duplicates": ["<|x|>"],
        "already_in_base": ["<|end|>"],
        "decoded_otherwise": [],
        "plain_words": [],
    }
    assert extender.has_built(expansion)
    assert not AddTokens(["<|x|>"]).has_built(expansion)


def test_nothing_new_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="Nothing to add: all 2 tokens exist"):
        AddTokens(["<|end|>", "a"]).extend(tokenizer)


def test_text_that_spells_another_token_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="'é' cannot be added"):
        AddTokens(["é"]).extend(tokenizer)
    with pytest.raises(ValueError, match=r"stands for other text \(' cat'\)"):
        AddTokens(["Ġcat"]).extend(ContinuedBPE(1).extend(tokenizer, [" cat cat"]).tokenizer)


def test_a_token_that_decodes_to_other_text_is_refused(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(ValueError, match="cannot be decoded again, such as '<é>'"):
        AddTokens(["<|x|>", "<é>"]).extend(tokenizer)


@pytest.mark.parametrize("token", ["<|ไทย|>", "<é中>"])
def test_a_character_that_spells_no_byte_keeps_a_token_readable(
    token: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    grown = AddTokens([token]).extend(tokenizer).tokenizer
    assert grown.decode(grown.encode(f"a{token}b")) == f"a{token}b"


@pytest.mark.parametrize("token", ["thei", " lead", "คำ"])
def test_plain_words_are_warned_of_and_recorded(
    token: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.warns(UserWarning, match=rf"plain words: '{token}'\..*Use ContinuedBPE"):
        expansion = AddTokens([token, "<x>", "a b"]).extend(tokenizer).expansion
    assert expansion.extender["report"]["plain_words"] == [token]


def test_text_decoded_otherwise_is_warned_of_and_recorded(
    fallback_tokenizer: PreTrainedTokenizerFast,
) -> None:
    with pytest.warns(UserWarning, match=r"Text around 1 added tokens .*: '<x>'\."):
        expanded = AddTokens(["<x>"]).extend(fallback_tokenizer)
    assert expanded.expansion.extender["report"]["decoded_otherwise"] == ["<x>"]
    grown = expanded.tokenizer
    assert grown.decode(grown.encode("a<x>b", add_special_tokens=False)) == "a<x> b"


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("", "Token 1 is empty"),
        (" \n", "Token 1 is blank"),
        ("a\0b", "Token 1 holds NUL"),
        ("a\ud800", "Token 1 holds a lone surrogate"),
    ],
)
def test_text_that_cannot_be_a_token_is_refused(token: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AddTokens(["<|x|>", token])


@pytest.mark.parametrize("tokens", ["<|x|>", None, ["<|x|>", 3]])
def test_other_than_a_list_of_strings_is_refused(tokens: Any) -> None:
    with pytest.raises(TypeError, match=r"Expected a list of tokens|Token 1 must be a string"):
        AddTokens(tokens)


@pytest.mark.parametrize("special", [None, "no", 1])
def test_special_must_be_a_bool(special: Any) -> None:
    with pytest.raises(TypeError, match=f"special must be a bool, got {special!r}"):
        AddTokens(["<|x|>"], special=special)


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        AddTokens([])


def test_base_tokenizer_is_left_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    before = fingerprint(tokenizer)
    AddTokens(["<|x|>"]).extend(tokenizer)
    assert fingerprint(tokenizer) == before


def test_a_tokenizer_with_added_tokens_can_be_continued(tokenizer: PreTrainedTokenizerFast) -> None:
    first = AddTokens(["<|x|>"], special=True).extend(tokenizer).tokenizer
    grown = ContinuedBPE(1).extend(first, ["qk<|x|>qk"])
    assert grown.expansion.new_ids == (301,)
    assert grown.tokenizer.encode("qk<|x|>") == [301, 300]


@pytest.mark.parametrize("special", [True, False])
def test_a_class_that_rebuilds_its_backend_reloads_with_the_tokens(
    special: bool, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = json.loads(backend(tokenizer).to_str())["model"]
    merges: Any = [tuple(merge) for merge in model["merges"]]
    base = Qwen2Tokenizer(vocab=model["vocab"], merges=merges)
    base.add_tokens(["<|im_start|>"], special_tokens=True)
    first = len(base)
    expanded = AddTokens(["<|tool|>"], special=special).extend(base)
    reloaded = AutoTokenizer.from_pretrained(save_expansion(expanded, tmp_path / "expansion"))
    assert type(reloaded) is Qwen2Tokenizer
    assert reloaded.encode("a<|tool|>") == [*base.encode("a"), first]
    assert reloaded.special_tokens_map == base.special_tokens_map


@pytest.mark.assets
@pytest.mark.parametrize(("folder", "special", "adds_blanks"), FOLDERS)
def test_real_tokenizers_reload_with_the_tokens(
    folder: str, special: bool, adds_blanks: bool, assets: Path, tmp_path: Path
) -> None:
    base = load_tokenizer(assets / folder)
    first = max(base.get_vocab().values()) + 1
    with pytest.warns(UserWarning, match="Text around 2") if adds_blanks else nullcontext():
        expanded = AddTokens(["<|tool|>", "<item 1>"], special=special).extend(base)
    reloaded = AutoTokenizer.from_pretrained(save_expansion(expanded, tmp_path / "expansion"))
    assert reloaded.convert_tokens_to_ids(["<|tool|>", "<item 1>"]) == [first, first + 1]
    assert type(reloaded) is type(base)
    assert reloaded.special_tokens_map == base.special_tokens_map
    assert backend(reloaded).to_str() == backend(expanded.tokenizer).to_str()
