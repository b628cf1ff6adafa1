"""Continued BPE into slots: the promises of `ContinuedBPE`, with no row more."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lightning_vocab.vocabulary import (
    ContinuedBPE,
    ExpandedTokenizer,
    check_base,
    fingerprint,
    load_expansion,
    load_tokenizer,
    save_expansion,
)
from lightning_vocab.vocabulary.fingerprint import backend
from lightning_vocab.vocabulary.guarantees import dead_tokens
from tests.conftest import NEW_TEXTS, make_tokenizer
from tests.expanded import with_slots
from tests.vocabulary.conftest import make_fallback_tokenizer, texts_of

CORPUS = [*NEW_TEXTS * 3, "ที่นี่ ที่นั่น ที่ไหน", "ที่นี่ <|reserved_1|> ที่นั่น"]
OLD_SPELLINGS = [f"<|reserved_{k}|>" for k in range(4)]


def make_base(kind: str = "byte-level") -> PreTrainedTokenizerFast:
    """Four reserved tokens and one behind them; two padded rows follow at `num_rows`."""
    return with_slots(make_tokenizer() if kind == "byte-level" else make_fallback_tokenizer(), 4)


@lru_cache
def grown(kind: str) -> tuple[PreTrainedTokenizerBase, ExpandedTokenizer]:
    base = make_base(kind)
    rows = len(base) + 2
    return base, ContinuedBPE(6, into_slots=True).extend(base, CORPUS, base_rows=rows)


KINDS = pytest.mark.parametrize("kind", ["byte-level", "byte-fallback"])


@KINDS
def test_new_tokens_take_exactly_the_slots(kind: str) -> None:
    base, expanded = grown(kind)
    first = len(base) - 5
    last = [len(base), len(base) + 1]
    expansion = expanded.expansion
    assert expansion.new_ids == (*range(first, first + 4), *last)
    assert {token.kind for token in expansion.tokens} == {"slot"}
    assert expansion.num_rows == expansion.base_rows == len(base) + 2
    assert expansion.extender["report"]["former"] == {
        str(first + k): spelling for k, spelling in enumerate(OLD_SPELLINGS)
    }


@KINDS
def test_the_merges_are_those_of_appended_tokens(kind: str) -> None:
    base, expanded = grown(kind)
    appended = ContinuedBPE(6).extend(base, CORPUS)
    merges = [
        json.loads(backend(tokenizer).to_str())["model"]["merges"]
        for tokenizer in (expanded.tokenizer, appended.tokenizer)
    ]
    assert merges[0] == merges[1]
    pieces = [
        {token.token: (token.surface, token.pieces) for token in each.expansion.tokens}
        for each in (expanded, appended)
    ]
    assert pieces[0] == pieces[1]


@KINDS
def test_all_other_tokens_keep_their_ids_and_the_slots_leave_the_added_tokens(kind: str) -> None:
    base, expanded = grown(kind)
    after = expanded.tokenizer.get_vocab()
    others = {token: i for token, i in base.get_vocab().items() if token not in OLD_SPELLINGS}
    assert {token: after.get(token) for token in others} == others
    assert after.keys().isdisjoint(OLD_SPELLINGS)
    added = backend(expanded.tokenizer).get_added_tokens_decoder()
    assert added.keys().isdisjoint(expanded.expansion.new_ids)
    assert expanded.tokenizer.decode(expanded.expansion.new_ids[0], skip_special_tokens=True)


@KINDS
def test_no_new_token_is_dead(kind: str) -> None:
    _, expanded = grown(kind)
    tokens = {token.id: token.token for token in expanded.expansion.tokens}
    assert dead_tokens(backend(expanded.tokenizer), tokens) == []


TEXTS = st.lists(
    st.sampled_from(["zebra", " quartz", "ที่", "นี่", "<|last|>", "<|end|>", "<s>", "\n", " ", "é"])
    | st.text(st.characters(codec="utf-8"), max_size=6),
    max_size=8,
).map("".join)


@pytest.mark.slow
@KINDS
@settings(max_examples=150, deadline=None, derandomize=True)
@given(text=TEXTS)
def test_no_text_gets_more_tokens_and_every_text_decodes_as_before(kind: str, text: str) -> None:
    base, expanded = grown(kind)
    old, new = base.encode(text), expanded.tokenizer.encode(text)
    assert len(new) <= len(old)
    assert expanded.tokenizer.decode(new) == base.decode(old)


@KINDS
def test_the_old_spelling_is_ordinary_text(kind: str) -> None:
    _, expanded = grown(kind)
    for spelling in OLD_SPELLINGS:
        assert (
            expanded.tokenizer.decode(expanded.tokenizer.encode(spelling, add_special_tokens=False))
            == spelling
        )


@KINDS
def test_a_saved_folder_reloads_the_same_and_fits_its_base(kind: str, tmp_path: Path) -> None:
    base, expanded = grown(kind)
    path = save_expansion(expanded, tmp_path / "expansion")
    check_base(load_expansion(path), base)
    loaded = AutoTokenizer.from_pretrained(path)
    assert backend(loaded).to_str() == backend(expanded.tokenizer).to_str()
    assert loaded.all_special_tokens == base.all_special_tokens
    assert "reserved_0" not in (path / "tokenizer.json").read_text(encoding="utf-8")


def test_slots_of_the_vocabulary_itself_are_replaced() -> None:
    data = json.loads(backend(make_tokenizer()).to_str())
    data["model"]["vocab"]["<unused0>"] = 300
    data["added_tokens"].append({**data["added_tokens"][0], "id": 300, "content": "<unused0>"})
    base = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(data)))
    expanded = ContinuedBPE(1, into_slots=True).extend(base, ["xyxy"])
    assert expanded.tokenizer.encode("xy") == [300]
    assert "<unused0>" not in expanded.tokenizer.get_vocab()


def test_patterns_choose_the_slots() -> None:
    extender = ContinuedBPE(2, into_slots=True, slot_patterns=["<|reserved_*|>"])
    assert extender.extend(make_base(), CORPUS, base_rows=400).expansion.new_ids == (300, 301)


def test_more_tokens_than_slots_are_refused_before_the_text_is_read() -> None:
    unread = map(pytest.fail, ["the text was read"])
    with pytest.raises(ValueError, match=r"7 slots are needed, the base has 6 \(2 padded, 4 <"):
        ContinuedBPE(7, into_slots=True).extend(make_base(), unread, base_rows=307)


def test_patterns_without_slots_and_other_types_are_refused() -> None:
    with pytest.raises(ValueError, match="into_slots is False"):
        ContinuedBPE(1, slot_patterns=["padded"])
    with pytest.raises(TypeError, match="into_slots must be a bool"):
        ContinuedBPE(1, into_slots=1)  # type: ignore[arg-type]  # what the test is about
    with pytest.raises(TypeError, match=r"list of patterns such as .* in slot_patterns, got 5"):
        ContinuedBPE(1, slot_patterns=5)  # type: ignore[arg-type]  # what the test is about


@KINDS
def test_protected_text_with_the_spelling_of_a_slot_is_refused_before_the_text_is_read(
    kind: str,
) -> None:
    unread = (pytest.fail(f"document {number} was read") for number in range(1))
    extender = ContinuedBPE(2, into_slots=True, protected=["b", "a <|reserved_1|>"])
    message = r"holds '<\|reserved_1\|>', the spelling of a slot that a new token will take \(id"
    with pytest.raises(ValueError, match=message):
        extender.extend(make_base(kind), unread)


def test_protected_text_may_hold_a_slot_that_is_not_taken() -> None:
    base, text = make_base(), "a <|reserved_3|>"
    extender = ContinuedBPE(2, into_slots=True, protected=[text])
    assert extender.extend(base, CORPUS).tokenizer.encode(text) == base.encode(text)


def test_settings_of_a_plain_run_do_not_name_slots() -> None:
    assert not [name for name in ContinuedBPE(1).arguments() if "slot" in name]
    _, expanded = grown("byte-level")
    assert ContinuedBPE(6, into_slots=True).has_built(expanded.expansion)
    assert not ContinuedBPE(6).has_built(expanded.expansion)


@dataclass(frozen=True)
class Case:
    """A real tokenizer, the height of its model's matrix, and its slots."""

    folder: str
    rows: int
    slots: int


@pytest.mark.slow
@pytest.mark.assets
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(Case("lm/english-4M", 4224, 128)),
        pytest.param(Case("tokenizers/phi3-mini", 32064, 53), marks=pytest.mark.slow),
        pytest.param(Case("tokenizers/qwen2.5", 151936, 271), marks=pytest.mark.slow),
        pytest.param(Case("tokenizers/llama3", 128256, 248), marks=pytest.mark.slow),
    ],
    ids=lambda case: case.folder,
)
def test_all_slots_of_real_tokenizers_are_filled_with_thai(
    case: Case, assets: Path, tmp_path: Path
) -> None:
    base = load_tokenizer(assets / case.folder)
    posts = texts_of(assets / "text/th_wisesight.jsonl", 1500)
    expanded = ContinuedBPE(case.slots, into_slots=True).extend(base, posts, base_rows=case.rows)
    expansion = expanded.expansion
    assert (len(expansion.tokens), expansion.num_rows) == (case.slots, case.rows)
    old, new = backend(base), backend(expanded.tokenizer)
    assert dead_tokens(new, {token.id: token.token for token in expansion.tokens}) == []
    path = save_expansion(expanded, tmp_path / "expansion")
    reloaded = load_expansion(path)
    check_base(reloaded, base)
    loaded = reloaded.tokenizer
    assert (type(loaded), loaded.chat_template) == (type(base), base.chat_template)
    assert fingerprint(loaded) == expansion.tokenizer_fingerprint
    lines = (assets / "text/ntrex_en_th_vi.jsonl").read_text(encoding="utf-8").splitlines()[:500]
    texts = [json.loads(line)[language] for line in lines for language in ("en", "th", "vi")]
    before, after = (
        [cut.ids for cut in each.encode_batch_fast(texts, add_special_tokens=False)]
        for each in (old, new)
    )
    assert all(len(b) <= len(a) for a, b in zip(before, after, strict=True))
    assert sum(map(len, after)) < sum(map(len, before))
    assert new.decode_batch(after) == old.decode_batch(before)
