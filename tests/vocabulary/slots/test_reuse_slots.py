from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lightning_vocab.vocabulary import (
    ExpandedTokenizer,
    VocabularyExpansion,
    check_base,
    fingerprint,
    load_expansion,
    load_tokenizer,
    save_expansion,
)
from lightning_vocab.vocabulary.fingerprint import backend
from lightning_vocab.vocabulary.slots.reuse_slots import ReuseSlots
from lightning_vocab.vocabulary.slots.slots import find_slots
from tests.conftest import case, make_tokenizer
from tests.expanded import with_slots

TOOLS = ["<|tool|>", "<|result|>"]


@pytest.fixture
def base() -> PreTrainedTokenizerFast:
    """300 tokens, ``<|reserved_0|>`` to ``<|reserved_2|>``, and ``<|last|>``: 304 tokens."""
    return with_slots(make_tokenizer(), 3)


def settings(tokenizer: PreTrainedTokenizerBase, i: int) -> dict[str, Any]:
    """Settings of an added token: special, normalized, lstrip, rstrip, single_word."""
    added = json.loads(backend(tokenizer).to_str())["added_tokens"]
    (item,) = (item for item in added if item["id"] == i)
    return {name: value for name, value in item.items() if name not in ("id", "content")}


def test_reserved_tokens_are_renamed_in_place(base: PreTrainedTokenizerFast) -> None:
    expanded = ReuseSlots(TOOLS).extend(base)
    grown, expansion = expanded.tokenizer, expanded.expansion
    assert [(t.id, t.token, t.kind) for t in expansion.tokens] == [
        (300, "<|tool|>", "slot"),
        (301, "<|result|>", "slot"),
    ]
    assert (expansion.base_len, expansion.base_rows, expansion.num_rows) == (304, 304, 304)
    expected = {**base.get_vocab(), "<|tool|>": 300, "<|result|>": 301}
    del expected["<|reserved_0|>"], expected["<|reserved_1|>"]
    assert grown.get_vocab() == expected
    assert settings(grown, 300) == settings(base, 300)
    assert expansion.extender["report"]["former"] == {
        "300": "<|reserved_0|>",
        "301": "<|reserved_1|>",
    }


def test_a_special_slot_stays_special_and_a_plain_one_plain(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenizer.add_tokens(["<unused0>"], special_tokens=True)
    tokenizer.add_tokens(["<unused1>"])
    grown = ReuseSlots(TOOLS, special=False).extend(tokenizer).tokenizer
    ids = grown.encode("a<|tool|><|result|>b")
    assert grown.decode(ids, skip_special_tokens=True) == "a<|result|>b"
    assert grown.decode(ids) == "a<|tool|><|result|>b"


@pytest.mark.parametrize(("special", "text"), [(True, "ab"), (False, "a<|tool|>b")])
def test_padded_rows_get_tokens_of_the_wanted_kind(
    special: bool, text: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    expanded = ReuseSlots(["<|tool|>"], special=special).extend(tokenizer, base_rows=320)
    assert (expanded.expansion.new_ids, expanded.expansion.num_rows) == ((300,), 320)
    grown = expanded.tokenizer
    assert grown.decode(grown.encode("a<|tool|>b"), skip_special_tokens=True) == text


def test_tokens_in_any_padded_row_keep_that_row_when_loaded(
    base: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    ids = [317, 310, 302]
    expanded = ReuseSlots([*TOOLS, "<|end_tool|>"], ids=ids).extend(base, base_rows=320)
    path = save_expansion(expanded, tmp_path / "expansion")
    for loaded in (load_expansion(path).tokenizer, AutoTokenizer.from_pretrained(path)):
        assert loaded.convert_tokens_to_ids([*TOOLS, "<|end_tool|>"]) == ids
        assert loaded.encode("a<|tool|>b<|last|>") == [
            *base.encode("a"),
            317,
            *base.encode("b"),
            303,
        ]
    again = ReuseSlots(["<|more|>"]).extend(expanded.tokenizer, base_rows=320)
    assert again.expansion.new_ids == (304,)
    assert again.tokenizer.convert_tokens_to_ids(TOOLS) == [317, 310]


def test_the_saved_tokenizer_knows_nothing_of_the_old_spelling(
    base: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    base.extra_special_tokens = ["<|reserved_0|>", "<|last|>"]
    expanded = ReuseSlots(["<|tool|>"]).extend(base)
    path = save_expansion(expanded, tmp_path / "expansion")
    loaded = AutoTokenizer.from_pretrained(path)
    assert loaded.all_special_tokens == ["<|end|>", "<|tool|>", "<|last|>"]
    assert loaded.special_tokens_map == base.special_tokens_map
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert "reserved_0" not in (path / name).read_text()
    assert 300 not in loaded.encode("<|reserved_0|>")
    assert base.extra_special_tokens == ["<|reserved_0|>", "<|last|>"]
    check_base(load_expansion(path), base)


def test_a_slot_of_the_vocabulary_alone_becomes_an_added_token() -> None:
    data = json.loads(backend(make_tokenizer()).to_str())
    data["model"]["vocab"]["<unused0>"] = 300
    base = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(data)))
    grown = ReuseSlots(["<|tool|>"]).extend(base).tokenizer
    assert grown.encode("<|tool|>") == [300]
    assert len(grown) == 301


def test_text_without_new_tokens_and_old_spellings_is_cut_as_before(
    base: PreTrainedTokenizerFast,
) -> None:
    grown = ReuseSlots([*TOOLS, "<|end_tool|>", "<|x|>"]).extend(base, base_rows=305).tokenizer
    for text in ("the cat<|last|> sat", "ก็ é\r\n", "<|end|>", "<|reserved_9|>"):
        assert grown.encode(text) == base.encode(text)
        assert grown.decode(grown.encode(text)) == base.decode(base.encode(text))


def test_too_few_slots_are_counted_in_the_error(base: PreTrainedTokenizerFast) -> None:
    tokens = [f"<|t{k}|>" for k in range(6)]
    with pytest.raises(ValueError, match=r"6 slots are needed, the base has 5 \(2 padded, 3 <\|r"):
        ReuseSlots(tokens).extend(base, base_rows=306)
    with pytest.raises(ValueError, match=r"has 0 \(none\)"):
        ReuseSlots(tokens).extend(make_tokenizer())
    with pytest.raises(ValueError, match="an id for each of the 6 tokens, got 2"):
        ReuseSlots(tokens, ids=[300, 301])


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("", "Token 1 is empty"),
        ("\t ", "Token 1 is blank"),
        ("a\0b", "Token 1 holds NUL"),
        ("a\ud800", "Token 1 holds a lone surrogate"),
        ("<x>", "Token 1 is token 0 again"),
        ("x" * 10_000, "Token 1 has 10000 characters"),
    ],
)
def test_text_that_cannot_be_a_token_is_refused(token: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReuseSlots(["<x>", token])


@pytest.mark.parametrize("token", ["<|end|>", "<|last|>", "<|reserved_2|>", "e", "é"])
def test_a_token_of_the_base_is_refused(token: str, base: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="of the base already"):
        ReuseSlots(["<x>", token]).extend(base)


def test_a_token_that_holds_the_spelling_of_a_reused_slot_is_refused(
    base: PreTrainedTokenizerFast,
) -> None:
    message = r"'<\|reserved_1\|>x' holds '<\|reserved_1\|>', the spelling of a slot .* \(id 301\)"
    with pytest.raises(ValueError, match=message):
        ReuseSlots(["<|reserved_1|>x", "<x>"]).extend(base)
    grown = ReuseSlots(["<|reserved_1|>x"]).extend(base)  # takes slot 300 alone
    assert grown.expansion.tokens[0].pieces == (301, *base.encode("x"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"special": None}, "special must be a bool, got None"),
        ({"patterns": 5}, "in patterns, got 5"),
        ({"ids": 5}, "in ids, got 5"),
    ],
)
def test_settings_of_another_type_are_refused_by_name(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        ReuseSlots(["<x>"], **settings)


def test_two_tokens_that_are_one_text_after_the_normalizer_are_refused(
    base: PreTrainedTokenizerFast,
) -> None:
    backend(base).normalizer = normalizers.NFC()
    with pytest.raises(ValueError, match=r"are one text .* after the base's normalizer"):
        ReuseSlots(["<ấ>", "<a\u0302\u0301>"]).extend(base)


def test_base_tokenizer_is_left_alone(base: PreTrainedTokenizerFast) -> None:
    before = fingerprint(base)
    ReuseSlots(TOOLS).extend(base)
    assert fingerprint(base) == before


def test_an_expansion_is_known_by_its_settings(base: PreTrainedTokenizerFast) -> None:
    expansion = ReuseSlots(TOOLS).extend(base).expansion
    assert VocabularyExpansion.from_json(expansion.to_json()) == expansion
    assert ReuseSlots(TOOLS).has_built(expansion)
    assert not ReuseSlots(TOOLS, ids=[300, 301]).has_built(expansion)


def test_a_former_slot_under_another_id_is_refused(base: PreTrainedTokenizerFast) -> None:
    expanded = ReuseSlots(["<|tool|>"]).extend(base)
    expanded.tokenizer.add_tokens(["<|reserved_0|>"])
    moved = ExpandedTokenizer(expanded.tokenizer, expanded.expansion)
    with pytest.raises(ValueError, match=r"have another id .*'<\|reserved_0\|>'"):
        check_base(moved, base)


@pytest.mark.assets
@pytest.mark.parametrize(
    ("folder", "rows", "pattern", "count"),
    [
        case("lm/english-4M", 4224, "padded", 128, quick=True),
        case("tokenizers/phi3-mini", 32064, "padded", 53, quick=False),
        case("tokenizers/qwen2.5", 151936, "padded", 271, quick=False),
        case("tokenizers/llama3", 128256, "<|reserved_special_token_*|>", 248, quick=False),
    ],
)
def test_all_slots_of_real_tokenizers_are_filled(
    folder: str, rows: int, pattern: str, count: int, assets: Path, tmp_path: Path
) -> None:
    base = load_tokenizer(assets / folder)
    tokens = [f"<|tool_{k}|>" for k in range(count)]
    with pytest.raises(ValueError, match=f"the base has {count} "):
        ReuseSlots([*tokens, "<|x|>"], patterns=[pattern]).extend(base, base_rows=rows)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Text around")  # Phi-3 pads text behind added tokens
        expanded = ReuseSlots(tokens, patterns=[pattern]).extend(base, base_rows=rows)
    ids = expanded.expansion.new_ids
    assert expanded.expansion.num_rows == rows
    assert list(ids) == [slot.id for slot in find_slots(base, rows, patterns=[pattern])]
    path = save_expansion(expanded, tmp_path / "expansion")
    reloaded = load_expansion(path)
    check_base(reloaded, base)
    loaded = reloaded.tokenizer
    assert type(loaded) is type(base)
    assert loaded.chat_template == base.chat_template
    assert loaded.all_special_tokens == base.all_special_tokens
    assert loaded.convert_tokens_to_ids(tokens) == list(ids)
    assert "<|reserved_special" not in (path / "tokenizer.json").read_text(encoding="utf-8")
