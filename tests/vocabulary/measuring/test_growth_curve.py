from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lightning_vocab.vocabulary import AddTokens, ContinuedBPE, ExpandedTokenizer
from lightning_vocab.vocabulary.fingerprint import backend
from lightning_vocab.vocabulary.measuring.growth_curve import (
    GrowthCurve,
    Lineage,
    grow_as_far_as_possible,
    measure_curve,
)
from tests.conftest import make_tokenizer
from tests.vocabulary.conftest import Grown, make_fallback_tokenizer, small_corpus

TEXTS = st.lists(st.text("abcde  éก่", min_size=20, max_size=80), min_size=3, max_size=6)


def cut_back(grown: ExpandedTokenizer, base: PreTrainedTokenizerBase, size: int) -> Tokenizer:
    """The grown tokenizer with the first ``size`` new tokens alone, by editing its JSON."""
    data = json.loads(backend(grown.tokenizer).to_str())
    kept = {token.token for token in grown.expansion.tokens[:size]}
    gone = {token.token for token in grown.expansion.tokens[size:]}
    num_old = len(json.loads(backend(base).to_str())["model"]["merges"])
    model = data["model"]
    model["vocab"] = {token: i for token, i in model["vocab"].items() if token not in gone}
    new = [pair for pair in model["merges"][num_old:] if "".join(pair) in kept]
    model["merges"] = model["merges"][:num_old] + new
    return Tokenizer.from_str(json.dumps(data))


def curve_of(
    base: PreTrainedTokenizerBase, grown: ExpandedTokenizer, texts: list[str]
) -> GrowthCurve:
    return measure_curve(base, grown, Lineage.of(base, grown), texts)


def check_size(
    base: PreTrainedTokenizerBase, grown: ExpandedTokenizer, texts: list[str], size: int
) -> None:
    """The curve at one size against the tokens and counts of a tokenizer of that size."""
    curve, smaller = curve_of(base, grown, texts), cut_back(grown, base, size)
    ids = [i for text in texts for i in smaller.encode(text, add_special_tokens=False).ids]
    assert curve.num_tokens[size] == len(ids)
    counts = Counter(ids)
    assert curve.counts_at(size).tolist() == [counts[i] for i in grown.expansion.new_ids[:size]]


@pytest.mark.slow
@given(learned=TEXTS, other=TEXTS, size=st.integers(0, 8))
def test_every_size_has_the_tokens_of_a_tokenizer_of_that_size(
    learned: list[str], other: list[str], size: int
) -> None:
    base = make_tokenizer()
    grown = ContinuedBPE(8, min_frequency=1).extend(base, ["zqxvzqxvz jkwq", *learned])
    check_size(base, grown, other, size)


@pytest.mark.slow
@given(learned=TEXTS, other=TEXTS, size=st.integers(0, 8))
def test_every_size_is_exact_where_characters_become_tokens_first(
    learned: list[str], other: list[str], size: int
) -> None:
    base = make_fallback_tokenizer()
    grown = ContinuedBPE(8, min_frequency=1).extend(base, ["กกbcdfg ก่dfghj éé", *learned])
    assert Lineage.of(base, grown).spared.max() == 2  # a Thai character is three bytes
    check_size(base, grown, other, size)


@pytest.mark.parametrize("size", [1, 3, 12, 20])
def test_a_growth_by_fewer_tokens_is_the_beginning_of_a_growth_by_more(
    tokenizer: PreTrainedTokenizerFast, size: int
) -> None:
    texts = ["the newest tokens of the widest model", "the lowest of the models, newest first"] * 3
    large = ContinuedBPE(20).extend(tokenizer, texts)
    small = ContinuedBPE(size).extend(tokenizer, texts)
    assert small.expansion.tokens == large.expansion.tokens[:size]
    expected = sum(len(small.tokenizer(text).input_ids) for text in texts)
    assert curve_of(tokenizer, large, texts).num_tokens[size] == expected


def test_a_merge_of_a_token_with_itself_uses_it_twice(tokenizer: PreTrainedTokenizerFast) -> None:
    # zz, then zzzz: eight letters are four tokens, then two; nine have one z left.
    grown = ContinuedBPE(2).extend(tokenizer, ["zzzzzzzz"] * 3)
    curve = curve_of(tokenizer, grown, ["zzzzzzzz", "zzzzzzzzz", "zzz"])
    assert [token.token for token in grown.expansion.tokens] == ["zz", "zzzz"]
    assert curve.made.tolist() == [9, 4]
    assert curve.num_tokens.tolist() == [20, 11, 7]
    assert curve.counts_at(1).tolist() == [9]
    assert curve.counts_at(2).tolist() == [1, 4]


def test_figures_of_a_curve_are_those_of_its_text(tokenizer: PreTrainedTokenizerFast) -> None:
    grown = ContinuedBPE(1).extend(tokenizer, ["zz"] * 2)
    curve = curve_of(tokenizer, grown, ["zzé", "z"])  # 5 bytes; z z é(2 bytes), z
    assert (curve.num_documents, curve.num_bytes, curve.num_tokens_before) == (2, 5, 5)
    np.testing.assert_allclose(curve.tokens_per_byte, [1.0, 0.8])
    np.testing.assert_allclose(curve.share_saved, [0.0, 0.2])
    both = curve.joined_with(curve)
    assert (both.num_documents, both.num_bytes, both.num_tokens.tolist()) == (4, 10, [10, 8])


def test_a_short_text_gives_as_many_tokens_as_it_can(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = ["zq zq zq"]
    grown = grow_as_far_as_possible(tokenizer, lambda: texts, {"num_new_tokens": 500})
    assert [token.token for token in grown.expansion.tokens] == ["zq", "Ġzq"]
    with pytest.raises(ValueError, match="Only 0 new tokens are possible"):
        grow_as_far_as_possible(tokenizer, lambda: ["z"], {"num_new_tokens": 500})


def test_a_tokenizer_that_is_not_the_base_with_merges_appended_is_refused(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    listed = AddTokens(["he c"]).extend(tokenizer)
    with pytest.raises(ValueError, match="not the base with merges appended"):
        curve_of(tokenizer, listed, ["the cat"])


def test_sizes_of_real_tokenizers_are_exact(grown: Grown, assets: Path) -> None:
    texts = small_corpus(assets)[:1100:10] + small_corpus(assets)[-3:]
    check_size(grown.base, grown.expanded, texts, 170)
