from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from lightning_vocab.vocabulary import (
    AddTokens,
    ContinuedBPE,
    ContinuedUnigram,
    ExpandedTokenizer,
    NewToken,
    load_tokenizer,
)
from lightning_vocab.vocabulary.pieces import PieceTable
from tests.conftest import NEW_TEXTS, case, make_tokenizer

BASE = make_tokenizer()
GROWN = ContinuedBPE(num_new_tokens=12).extend(BASE, NEW_TEXTS * 4)
WORDS = st.sampled_from(["zebra", "quartz", "vivid", "jungle", " ", "zeb", "uartz", "the", "\n"])


def in_pieces(expanded: ExpandedTokenizer, text: str) -> list[int]:
    table = PieceTable(expanded.expansion.tokens, expanded.expansion.num_rows)
    ids = expanded.tokenizer.encode(text, add_special_tokens=False)
    pieces: list[int] = table.expand(numpy.array(ids, numpy.int64))[0].tolist()
    return pieces


def base_cut(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def test_tokens_are_replaced_by_their_pieces_and_ends_are_known() -> None:
    tokens = [
        NewToken(7, "ab", "ab", "text", (1, 2)),
        NewToken(8, "b", "b", "slot", (2,)),
        NewToken(9, "abc", "abc", "text", (1, 2, 3)),
    ]
    table = PieceTable(tokens, num_rows=10)
    expanded, ends = table.expand(numpy.array([9, 0, 8, 7, 9]))
    assert expanded.tolist() == [1, 2, 3, 0, 2, 1, 2, 1, 2, 3]
    assert ends.tolist() == [3, 4, 5, 7, 10]
    assert table.holds(numpy.array([0, 7, 1, 9])).tolist() == [False, True, False, True]


def test_a_table_of_no_tokens_changes_nothing() -> None:
    expanded, ends = PieceTable([], num_rows=4).expand(numpy.array([3, 0, 3]))
    assert expanded.tolist() == [3, 0, 3]
    assert ends.tolist() == [1, 2, 3]


@given(text=st.lists(WORDS | st.text(max_size=5), max_size=12).map("".join))
def test_the_teacher_reads_any_text_as_the_base_cuts_it(text: str) -> None:
    assert in_pieces(GROWN, text) == base_cut(BASE, text)


@given(
    corpus=st.lists(st.text("abc ", min_size=8, max_size=30), min_size=2, max_size=6),
    text=st.text("abc ", max_size=40),
)
def test_the_teacher_reads_the_base_cut_whatever_the_merges_are(
    corpus: list[str], text: str
) -> None:
    try:
        grown = ContinuedBPE(num_new_tokens=4).extend(BASE, corpus * 3)
    except ValueError:  # so few pairs that there are no four merges
        return
    assert in_pieces(grown, text) == base_cut(BASE, text)


@pytest.mark.slow
@pytest.mark.assets
@pytest.mark.parametrize(
    "name",
    [
        case("tokenizers/gpt2", quick=False),
        case("tokenizers/llama2", quick=False),
        case("tokenizers/qwen2.5", quick=False),
        case("tokenizers/llama3", quick=False),
        case("tokenizers/phi3-mini", quick=False),
        case("lm/stories260K", quick=True),
    ],
)
def test_the_teacher_reads_thai_and_vietnamese_as_real_bases_cut_it(
    name: str, assets: Path
) -> None:
    lines = (assets / "text/ntrex_en_th_vi.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)[language] for line in lines[:150] for language in ("en", "th", "vi")]
    base = load_tokenizer(str(assets / name))
    grown = ContinuedBPE(num_new_tokens=150).extend(base, texts[:300])
    differing = [text for text in texts if in_pieces(grown, text) != base_cut(base, text)]
    assert differing == []


@given(text=st.lists(WORDS | st.just("<|tool|>"), max_size=8).map("".join))
def test_with_added_tokens_the_teacher_reads_the_same_text_in_base_tokens(text: str) -> None:
    grown = AddTokens(["<|tool|>"]).extend(BASE, [])
    ids = in_pieces(grown, text)
    assert max(ids, default=0) < len(BASE)
    assert BASE.decode(ids) == text


@pytest.mark.assets
@pytest.mark.slow
def test_with_unigram_the_teacher_reads_the_same_text_in_base_tokens(assets: Path) -> None:
    path = assets / "text/ntrex_en_th_vi.jsonl"
    texts = [json.loads(line)["en"] for line in path.read_text(encoding="utf-8").splitlines()]
    base = load_tokenizer(str(assets / "tokenizers/t5-small"))
    grown = ContinuedUnigram(num_new_tokens=50).extend(base, texts[:800])
    for text in texts[:100]:
        assert base.decode(in_pieces(grown, text)) == base.decode(base_cut(base, text))
