from __future__ import annotations

import json
import re
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lightning_vocab.vocabulary import (
    ContinuedBPE,
    ExpandedTokenizer,
    describe_expansion,
    fingerprint,
    load_expansion,
    load_tokenizer,
    save_expansion,
)
from lightning_vocab.vocabulary.base_check import check_base
from lightning_vocab.vocabulary.fingerprint import backend
from lightning_vocab.vocabulary.guarantees import dead_tokens
from lightning_vocab.vocabulary.limits import TooFewTokensError
from lightning_vocab.vocabulary.unigram.continued_unigram import ContinuedUnigram
from tests.conftest import make_tokenizer
from tests.vocabulary.unigram.unigrams import make_unigram_tokenizer

CORPUS = [
    "zebra quartz jungle zebra quartz, ขอบคุณครับ",
    "lizard pumpkin dragon velvet lizard pumpkin rhythm dragon velvet rhythm",
    "quartz vivid jungle zebra vivid, ขอบคุณมาก ครับ",
    "vivid zebra jungle quartz vivid jungle, Hà Nội Hà Nội",
] * 3
SNIPPETS = st.sampled_from(
    [
        "<unk>", "</s>", "＜pad＞", "<0xE0>", "▁", "▁▁", " ", "\n", "\t", "ขอบคุณ", "ก็", "ๆๆ",
        "zebra", "zebrazebra", "ebraq", "quartz,", "Nội", "e\u0301", "👩‍👩‍👧", "\x00", "ﬁ", "½",
        "中文", "theand", "▅",
    ]
)  # fmt: skip
TEXTS = st.lists(SNIPPETS | st.text(st.characters(codec="utf-8"), max_size=8), max_size=8).map(
    "".join
)
KINDS = [(False, True), (False, False), (True, True), (True, False)]


@cache
def grown_pair(
    byte_fallback: bool, new_characters: bool
) -> tuple[PreTrainedTokenizerFast, ExpandedTokenizer]:
    base = make_unigram_tokenizer(byte_fallback=byte_fallback)
    extender = ContinuedUnigram(8, new_characters=new_characters, character_coverage=0.5)
    return base, extender.extend(base, CORPUS)


def cut(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[int], list[str], str]:
    found = backend(tokenizer).encode(text, add_special_tokens=False)
    return found.ids, found.tokens, backend(tokenizer).decode(found.ids, skip_special_tokens=False)


def lost(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """Number of characters that come back as `<unk>`; a run of them is one token."""
    ids, tokens, _ = cut(tokenizer, text)
    return sum(len(token) for token, i in zip(tokens, ids, strict=True) if i == 2)


@settings(derandomize=True)
@given(TEXTS)
@pytest.mark.parametrize("kind", [(False, False), (True, False), (True, True)])
def test_no_text_gets_more_tokens_and_each_decodes_as_before(
    kind: tuple[bool, bool], text: str
) -> None:
    base, grown = grown_pair(*kind)
    before, after = cut(base, text), cut(grown.tokenizer, text)
    assert len(after[0]) <= len(before[0])
    # A base with byte tokens takes their spelling for the byte, which swallows what is beside it.
    if not re.search("<0x[0-9A-F]{2}>", unicodedata.normalize("NFKC", text)):
        assert after[2] == before[2]


@settings(derandomize=True)
@given(TEXTS)
def test_new_characters_cost_at_most_one_token_each_and_only_give_lost_text_back(
    text: str,
) -> None:
    base, grown = grown_pair(byte_fallback=False, new_characters=True)
    (ids, tokens, decoded), after = cut(base, text), cut(grown.tokenizer, text)
    unknown = [token for token, i in zip(tokens, ids, strict=True) if i == 2]
    # A run of unknown characters is one token of the base.
    assert len(after[0]) <= len(ids) + sum(len(token) - 1 for token in unknown)
    if not unknown:
        assert after[2] == decoded


@pytest.mark.parametrize("kind", KINDS)
def test_exactly_the_wanted_number_behind_the_base_and_none_dead(kind: tuple[bool, bool]) -> None:
    base, grown = grown_pair(*kind)
    first = len(base)
    assert grown.expansion.new_ids == tuple(range(first, first + 8))
    tokens = {token.id: token.token for token in grown.expansion.tokens}
    assert dead_tokens(backend(grown.tokenizer), tokens) == []
    assert {t: grown.tokenizer.get_vocab()[t] for t in base.get_vocab()} == base.get_vocab()


@pytest.mark.parametrize("kind", KINDS)
def test_the_text_uses_every_new_token_often_enough(kind: tuple[bool, bool]) -> None:
    _, grown = grown_pair(*kind)
    used = [i for text in CORPUS for i in cut(grown.tokenizer, text)[0]]
    longer = [token.id for token in grown.expansion.tokens if len(token.token) > 1]
    assert longer
    assert min(used.count(i) for i in longer) >= 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_expansion_comes_back_and_fits_its_base(
    kind: tuple[bool, bool], tmp_path: Path
) -> None:
    base, grown = grown_pair(*kind)
    found = load_expansion(save_expansion(grown, tmp_path / "expansion"))
    assert found.expansion == grown.expansion
    assert fingerprint(found.tokenizer) == fingerprint(grown.tokenizer)
    check_base(found, base)


def test_without_new_characters_unknown_text_stays_as_it_is() -> None:
    base, grown = grown_pair(byte_fallback=False, new_characters=False)
    assert cut(grown.tokenizer, "ขอบคุณ") == cut(base, "ขอบคุณ")
    known = set(base.get_vocab())
    assert all(set(token.token) <= known for token in grown.expansion.tokens)


def test_new_characters_come_first_the_most_frequent_ahead() -> None:
    grown = ContinuedUnigram(4).extend(make_unigram_tokenizer(), ["ab ก ก ก ข ข ค ค ค ค ง"])
    assert [token.token for token in grown.expansion.tokens[:3]] == ["ค", "ก", "ข"]
    assert grown.tokenizer.tokenize("ง ค") == ["▁", "ง", "▁ค"]


def test_rare_characters_beyond_the_coverage_stay_unknown() -> None:
    texts = ["กกกกกกกก ข" + " zebra" * 3]
    grown = ContinuedUnigram(2, min_frequency=1, character_coverage=0.5).extend(
        make_unigram_tokenizer(), texts
    )
    assert "ข" not in grown.tokenizer.get_vocab()
    assert grown.expansion.tokens[0].token == "ก"


def test_no_token_is_longer_than_allowed() -> None:
    grown = ContinuedUnigram(6, max_token_length=3).extend(make_unigram_tokenizer(), CORPUS)
    assert max(len(token.token) for token in grown.expansion.tokens) <= 3


def test_rare_tokens_are_not_added() -> None:
    texts = ["zebra " * 5 + "quartz " * 2]
    with pytest.raises(TooFewTokensError, match="Only 1 new tokens are possible") as caught:
        ContinuedUnigram(5, min_frequency=3).extend(make_unigram_tokenizer(), texts)
    assert caught.value.possible == 1


@pytest.mark.slow
def test_only_words_of_the_scripts_give_tokens() -> None:
    grown = ContinuedUnigram(9, scripts=["Thai"]).extend(make_unigram_tokenizer(), CORPUS * 3)
    letters = {char for token in grown.expansion.tokens for char in token.token}
    assert letters <= set("▁ขอบคุณครับมาก,")


def test_a_token_has_its_blank_in_front_or_none_where_text_is_not_cut_into_words() -> None:
    base = make_unigram_tokenizer(split=False)
    grown = ContinuedUnigram(2).extend(base, ["zebra quartz zebra quartz"] * 5)
    tokens = [token.token for token in grown.expansion.tokens]
    assert set(tokens) == {"▁zebra", "▁quartz"}


def test_added_tokens_in_the_text_are_no_words() -> None:
    base = make_unigram_tokenizer()
    base.add_tokens([AddedToken("zebra", normalized=True)])
    grown = ContinuedUnigram(1).extend(base, ["zebra zebra zebra quartz quartz"])
    assert [token.token for token in grown.expansion.tokens] == ["▁quartz"]


def test_added_tokens_behind_the_list_keep_their_ids() -> None:
    base = make_unigram_tokenizer()
    base.add_tokens([AddedToken("tool", special=True), AddedToken("plain")])
    ids = base.convert_tokens_to_ids(["tool", "plain"])
    grown = ContinuedUnigram(2).extend(base, CORPUS)
    assert grown.tokenizer.convert_tokens_to_ids(["tool", "plain"]) == ids
    assert grown.expansion.new_ids == (len(base), len(base) + 1)
    text = "a tool is plain, ｔｏｏｌ too"
    assert cut(grown.tokenizer, text)[0] == cut(base, text)[0]
    backend(grown.tokenizer).encode_special_tokens = True
    backend(base).encode_special_tokens = True
    assert cut(grown.tokenizer, "a tool")[0] == cut(base, "a tool")[0]


def test_an_added_token_that_text_would_reach_is_refused() -> None:
    base = make_unigram_tokenizer()
    base.add_tokens([AddedToken("<sep>", special=True)])
    with pytest.raises(ValueError, match=r"'<sep>' cannot keep its id.*add such tokens afterwards"):
        ContinuedUnigram(1).extend(base, CORPUS)


def test_class_special_tokens_and_chat_template_survive() -> None:
    base = make_unigram_tokenizer()
    base.chat_template = "{{ messages }}"
    grown = ContinuedUnigram(2).extend(base, CORPUS).tokenizer
    assert type(grown) is type(base)
    assert grown.special_tokens_map == base.special_tokens_map
    assert grown.chat_template == base.chat_template


def test_same_text_gives_the_same_tokenizer_and_the_base_is_left_alone() -> None:
    base = make_unigram_tokenizer()
    before = fingerprint(base)
    first, second = (ContinuedUnigram(9).extend(base, iter(CORPUS)) for _ in range(2))
    assert first.expansion == second.expansion
    assert fingerprint(base) == before


def test_a_grown_tokenizer_can_grow_again() -> None:
    base = make_unigram_tokenizer()
    once = ContinuedUnigram(3, new_characters=False).extend(base, CORPUS[:1] * 3)
    twice = ContinuedUnigram(20).extend(once.tokenizer, CORPUS)
    text = " ".join(CORPUS)
    lengths = [len(cut(t, text)[0]) for t in (twice.tokenizer, once.tokenizer, base)]
    assert lengths == sorted(lengths)


def test_truncation_left_on_by_a_call_does_not_cut_the_corpus() -> None:
    base = make_unigram_tokenizer()
    expected = ContinuedUnigram(9).extend(base, CORPUS).expansion
    base(CORPUS, truncation=True, max_length=2)
    assert ContinuedUnigram(9).extend(base, CORPUS).expansion == expected


def test_empty_documents_and_control_characters_are_no_obstacle() -> None:
    texts = ["", "zebra\x00zebra\tzebra\u2585zebra\u3000zebra", ""] * 3
    grown = ContinuedUnigram(1).extend(make_unigram_tokenizer(), texts)
    assert grown.expansion.tokens[0].token in {"zebra", "▁zebra"}


def test_new_ids_fall_on_padded_rows_first() -> None:
    base = make_unigram_tokenizer()
    expansion = ContinuedUnigram(2).extend(base, CORPUS, base_rows=64).expansion
    assert (expansion.base_len, expansion.base_rows, expansion.num_rows) == (len(base), 64, 64)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (models.BPE({"a": 0}, []), "a BPE model. Use ContinuedBPE for it"),
        (models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"), "WordPiece model"),
        (models.Unigram([("a", -1.0)], None), "no unk token"),
        (models.Unigram([("u", 0.0), ("a", -1.0), ("a", -2.0)], 0), "two of its ids alike"),
    ],
    ids=["bpe", "wordpiece", "no-unk", "twice"],
)
def test_other_kinds_are_refused_with_the_reason(model: models.Model, reason: str) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model))
    with pytest.raises(ValueError, match=reason):
        ContinuedUnigram(1).extend(tokenizer, ["abc"])


def test_a_decoder_that_reads_longer_tokens_otherwise_is_refused() -> None:
    base = make_unigram_tokenizer()
    backend(base).decoder = decoders.Sequence([decoders.Replace("ebra", "_"), decoders.Fuse()])
    with pytest.raises(ValueError, match="would be decoded as"):
        ContinuedUnigram(1).extend(base, ["zebra"] * 5)


def test_continued_bpe_names_the_extender_for_unigram() -> None:
    with pytest.raises(ValueError, match=r"Unigram model.*Use ContinuedUnigram for it"):
        ContinuedBPE(1).extend(make_unigram_tokenizer(), CORPUS)
    with pytest.raises(ValueError, match="Use ContinuedBPE for it"):
        ContinuedUnigram(1).extend(make_tokenizer(), CORPUS)


def test_no_text_and_lone_surrogates_are_refused() -> None:
    base = make_unigram_tokenizer()
    with pytest.raises(ValueError, match="no text to learn from"):
        ContinuedUnigram(1).extend(base, ["", ""])
    with pytest.raises(ValueError, match="lone surrogate"):
        ContinuedUnigram(1).extend(base, ["a\ud800"])


@pytest.mark.parametrize(
    ("settings_", "error"),
    [
        ({"num_new_tokens": 0}, ValueError),
        ({"num_new_tokens": 2.5}, TypeError),
        ({"min_frequency": True}, TypeError),
        ({"character_coverage": 1.5}, ValueError),
        ({"new_characters": 1}, TypeError),
        ({"scripts": ["Siamese"]}, ValueError),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(
    settings_: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=next(iter(settings_)).rstrip("s")[:6]):
        ContinuedUnigram(**{"num_new_tokens": 1, **settings_})


def test_the_manifest_names_the_settings() -> None:
    extender = ContinuedUnigram(2, scripts=["Latin"])
    expansion = extender.extend(make_unigram_tokenizer(), CORPUS).expansion
    assert extender.has_built(expansion)
    assert not ContinuedUnigram(2).has_built(expansion)


def test_nothing_is_printed_where_stderr_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    ContinuedUnigram(1).extend(make_unigram_tokenizer(), CORPUS)
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


@pytest.mark.parametrize("change", [1e-9, -1e-3], ids=["raised", "lowered"])
def test_old_scores_that_moved_are_found(change: float) -> None:
    base, grown = grown_pair(byte_fallback=False, new_characters=True)
    data = json.loads(backend(grown.tokenizer).to_str())
    data["model"]["vocab"][5][1] += change
    other = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(data)),
        **{name: str(token) for name, token in base.special_tokens_map.items()},
    )
    with pytest.raises(ValueError, match="scores of the base must stay"):
        describe_expansion(base, other)


@pytest.fixture(scope="module")
def t5(assets: Path) -> tuple[PreTrainedTokenizerBase, ExpandedTokenizer]:
    base = load_tokenizer(assets / "tokenizers/t5-small")
    with (assets / "text/th_wisesight.jsonl").open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line, _ in zip(lines, range(800), strict=False)]
    return base, ContinuedUnigram(200).extend(base, texts, base_rows=32128)


@pytest.mark.slow
@pytest.mark.assets
def test_t5_keeps_english_and_gives_thai_back(
    t5: tuple[PreTrainedTokenizerBase, ExpandedTokenizer], assets: Path
) -> None:
    base, grown = t5
    lines = (assets / "text/ntrex_en_th_vi.jsonl").read_text(encoding="utf-8").splitlines()[:300]
    for line in map(json.loads, lines):
        before, after = cut(base, line["en"]), cut(grown.tokenizer, line["en"])
        if 2 not in before[0]:
            assert len(after[0]) <= len(before[0])
            assert after[2] == before[2]
        assert lost(grown.tokenizer, line["th"]) < lost(base, line["th"])
    assert cut(grown.tokenizer, "ขอบคุณครับ")[2] == "ขอบคุณครับ"
    assert cut(base, "ขอบคุณครับ")[2] == "<unk>"


@pytest.mark.slow
@pytest.mark.assets
def test_t5_keeps_its_class_its_ids_and_its_rows(
    t5: tuple[PreTrainedTokenizerBase, ExpandedTokenizer], tmp_path: Path
) -> None:
    base, grown = t5
    assert type(grown.tokenizer) is type(base)
    assert grown.expansion.new_ids == tuple(range(32100, 32300))
    assert grown.expansion.base_rows == 32128
    assert grown.tokenizer.convert_tokens_to_ids("<extra_id_0>") == 32099
    check_base(load_expansion(save_expansion(grown, tmp_path / "expansion")), base)
