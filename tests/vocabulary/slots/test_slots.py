from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from lightning_vocab.vocabulary import (
    MANIFEST_NAME,
    AddTokens,
    ContinuedBPE,
    load_expansion,
    load_tokenizer,
    save_expansion,
)
from lightning_vocab.vocabulary.backend_state import read_state
from lightning_vocab.vocabulary.slots.edit import check_gone
from lightning_vocab.vocabulary.slots.slots import Slot, find_slots
from tests.conftest import case, make_tokenizer
from tests.expanded import with_slots

RESERVED = "<|reserved_*|>"


@pytest.fixture
def base() -> PreTrainedTokenizerFast:
    """300 tokens, ``<|reserved_0|>`` to ``<|reserved_2|>``, and ``<|last|>``: 304 tokens."""
    return with_slots(make_tokenizer(), 3)


def test_padded_rows_come_first_then_reserved_tokens(base: PreTrainedTokenizerFast) -> None:
    assert find_slots(base, 306) == (
        Slot(304, None, "padded"),
        Slot(305, None, "padded"),
        Slot(300, "<|reserved_0|>", RESERVED),
        Slot(301, "<|reserved_1|>", RESERVED),
        Slot(302, "<|reserved_2|>", RESERVED),
    )


def test_without_a_known_height_there_are_no_padded_rows(base: PreTrainedTokenizerFast) -> None:
    assert [slot.id for slot in find_slots(base, None)] == [300, 301, 302]


def test_patterns_choose_the_slots_and_their_order(base: PreTrainedTokenizerFast) -> None:
    found = find_slots(base, 305, patterns=[RESERVED, "padded"])
    assert [slot.id for slot in found] == [300, 301, 302, 304]
    assert [slot.id for slot in find_slots(base, 305, patterns=["<|reserved_1|>"])] == [301]
    assert [slot.id for slot in find_slots(base, 305, patterns=["<|last|>"])] == [303]


def test_ids_choose_the_slots_and_their_order(base: PreTrainedTokenizerFast) -> None:
    assert [slot.id for slot in find_slots(base, 306, ids=[302, 305])] == [302, 305]


@pytest.mark.parametrize(
    "token",
    [
        "<|reserved_special_token_247|>", "<unused7>", "[unused12]", "<|extra_204|>",
        "<reserved_106>", "<|dummy_85|>", "<|placeholder1|>", "<SPECIAL_36>", "[control_8]",
        "<｜place▁holder▁no▁0｜>",
    ],
)  # fmt: skip
def test_known_spellings_are_found_by_themselves(
    token: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    tokenizer.add_tokens([AddedToken(token, normalized=False)])
    (slot,) = find_slots(tokenizer, 301)
    assert (slot.id, slot.token) == (300, token)


def test_trained_sentinels_are_found_only_when_asked_for(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenizer.add_tokens(["<extra_id_0>"], special_tokens=True)
    assert find_slots(tokenizer, 301) == ()
    assert [slot.id for slot in find_slots(tokenizer, 301, patterns=["<extra_id_*>"])] == [300]
    assert [slot.id for slot in find_slots(tokenizer, 301, ids=[300])] == [300]


def test_a_number_stands_for_the_star_and_nothing_else_does(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenizer.add_tokens(["<unused>", "<unusedx>", "<unused1", "<unused2>"], special_tokens=True)
    assert [slot.id for slot in find_slots(tokenizer, None)] == [303]


@pytest.mark.parametrize("pattern", ["*", "a", "the", "<unused*>"])
def test_what_text_reaches_is_no_slot(pattern: str, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="finds no slot"):
        find_slots(tokenizer, 300, patterns=[pattern])


def test_tokens_of_the_vocabulary_alone_are_slots_unless_merges_lead_to_them() -> None:
    base = _in_vocabulary(["<unused1>", "<unused2>"], merges=[["<", "unused2>"], ["u", "nused2>"]])
    assert [slot.token for slot in find_slots(base, None)] == ["<unused1>"]


def _in_vocabulary(tokens: list[str], merges: list[list[str]]) -> PreTrainedTokenizerFast:
    data = json.loads(make_tokenizer().backend_tokenizer.to_str())
    vocab = data["model"]["vocab"]
    for token in [*tokens, "unused2>", "nused2>"]:
        vocab[token] = len(vocab)
    data["model"]["merges"] += merges
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(data)))


@pytest.mark.parametrize(
    ("change", "named_by"),
    [
        ({"chat_template": "{{ '<|reserved_1|>' }}"}, "the chat template"),
        ({"chat_template": {"a": "x", "b": "{{ '<|reserved_1|>' }}"}}, "the chat template"),
        ({"pad_token": "<|reserved_1|>"}, "the special-token map"),
        ({"init_kwargs": {"image_token": "<|reserved_1|>"}}, "the tokenizer's settings"),
        ({"chat_control_tokens": ["<|reserved_1|>"]}, "the tokenizer's settings"),
    ],
)
def test_what_the_tokenizer_names_is_no_slot(
    change: dict[str, Any], named_by: str, base: PreTrainedTokenizerFast
) -> None:
    for name, value in change.items():
        setattr(base, name, value)
    assert [slot.id for slot in find_slots(base, None)] == [300, 302]
    with pytest.raises(ValueError, match=rf"Id 301 .* is named by {named_by}"):
        find_slots(base, None, ids=[300, 301])
    with pytest.raises(ValueError, match=rf"token 301 is named by {named_by}"):
        find_slots(base, None, patterns=["<|reserved_1|>"])


def test_what_the_post_processor_puts_around_a_text_is_no_slot(
    base: PreTrainedTokenizerFast,
) -> None:
    base.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|reserved_0|> $A", special_tokens=[("<|reserved_0|>", 300)]
    )
    with pytest.raises(ValueError, match=r"Id 300 .* is named by the post-processor"):
        find_slots(base, None, ids=[300])


def test_what_the_model_s_configs_name_is_no_slot(
    base: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    base.save_pretrained(tmp_path)
    text = {"text_config": {"pad_token_id": 304}, "vocab_size": 302, "eos_token_id": None}
    (tmp_path / "config.json").write_text(json.dumps(text))
    generation = {"eos_token_id": [0, 300], "suppress_tokens": [301, 302]}
    (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    loaded = load_tokenizer(tmp_path)
    assert [slot.id for slot in find_slots(loaded, 306)] == [305, 301, 302]
    with pytest.raises(ValueError, match=r"Id 304 .* eos_token_id|pad_token_id in config.json"):
        find_slots(loaded, 306, ids=[304])


def with_configs(base: PreTrainedTokenizerFast, folder: Path) -> None:
    base.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"pad_token_id": 301, "eos_token_id": [0, 301]}))


def test_what_the_base_s_configs_name_is_no_slot_of_a_saved_growth_either(
    base: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    with_configs(base, tmp_path / "base")
    tokenizer = load_tokenizer(tmp_path / "base")
    slots = find_slots(tokenizer, None)
    assert [slot.id for slot in slots] == [300, 302]
    for generation, extender in enumerate((ContinuedBPE(1, progress=False), AddTokens(["<|t|>"]))):
        grown = extender.extend(tokenizer, ["two cats two cats two cats"])
        assert find_slots(grown.tokenizer, None) == slots
        path = save_expansion(grown, tmp_path / f"grown_{generation}")
        (tmp_path / "base" / "config.json").unlink(missing_ok=True)
        assert not (path / "config.json").exists()
        tokenizer = load_expansion(path).tokenizer
        assert find_slots(tokenizer, None) == slots
    with pytest.raises(ValueError, match=r"Id 301 .* is named by eos_token_id in config\.json"):
        find_slots(tokenizer, None, ids=[301])


@pytest.mark.parametrize("named", [[301], "301", {"pad": 301}, {"pad": ["301"]}, {"pad": [True]}])
def test_a_manifest_whose_named_ids_are_none_is_refused(
    named: Any, base: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    path = save_expansion(AddTokens(["<|t|>"]).extend(base), tmp_path / "grown")
    data = json.loads((path / MANIFEST_NAME).read_text(encoding="utf-8"))
    data["extender"]["named_ids"] = named
    (path / MANIFEST_NAME).write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ValueError, match="expected lists of ids by setting under 'named_ids'"):
        find_slots(load_tokenizer(path), None)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([303], r"Id 303 holds '<\|last\|>'"),
        ([66], "Id 66 holds 'b'"),
        ([306], "306 is out of range: the base has rows 0 to 305"),
        ([-1], "-1 is out of range"),
        ([300, 304, 300], "300 twice"),
        ([], "got none"),
    ],
)
def test_ids_that_are_not_free_are_refused_by_name(
    ids: list[int], message: str, base: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(ValueError, match=message):
        find_slots(base, 306, ids=ids)


@pytest.mark.parametrize("ids", [["300"], [True], [300.0], "300", 5])
def test_ids_of_another_type_are_refused(ids: Any, base: PreTrainedTokenizerFast) -> None:
    with pytest.raises(TypeError, match=r"whole numbers|list of ids of slots in ids, got 5"):
        find_slots(base, 306, ids=ids)


@pytest.mark.parametrize(
    ("patterns", "error"),
    [("<a*>", TypeError), ([1], TypeError), ([], ValueError), ([""], ValueError)],
)
def test_patterns_that_are_none_are_refused(
    patterns: Any, error: type[Exception], base: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(error, match="Expected"):
        find_slots(base, 306, patterns=patterns)


def test_a_spelling_that_comes_back_is_an_error(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match=r"makes 1 reserved tokens anew .*'<\|end\|>'"):
        check_gone(read_state(tokenizer), [Slot(0, "<|end|>", RESERVED)])


@pytest.mark.slow
@pytest.mark.assets
@pytest.mark.parametrize(
    ("folder", "rows", "counts"),
    [
        case("tokenizers/qwen2.5", 151936, {"padded": 271}, quick=False),
        case("tokenizers/phi3-mini", 32064, {"padded": 53, "<|placeholder*|>": 6}, quick=False),
        case("tokenizers/t5-small", 32128, {"padded": 28}, quick=False),
        case("lm/english-4M", 4224, {"padded": 128}, quick=True),
        case("tokenizers/gpt2", 50257, {}, quick=True),
    ],
)
def test_slots_of_real_tokenizers(
    folder: str, rows: int, counts: dict[str, int], assets: Path
) -> None:
    found = [slot.pattern for slot in find_slots(load_tokenizer(assets / folder), rows)]
    assert {pattern: found.count(pattern) for pattern in found} == counts
