"""The three promises of the scores, on vocabularies in which almost every cut ties with another."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from lightning_vocab.vocabulary.backend_state import read_state
from lightning_vocab.vocabulary.unigram.layout import read_unigram
from lightning_vocab.vocabulary.unigram.scores import MARGIN, UnigramScores

PIECES = [a + b + c for a, b, c in product(["", *"abc"], ["", *"abc"], "abc")]
LONGER = sorted({piece for piece in PIECES if len(piece) > 1})
# Whole numbers: cuts of different lengths tie, which real scores hardly do.
COARSE = st.integers(-9, -1).map(float)
TEXTS = st.lists(st.text("abc", min_size=1, max_size=24), min_size=1, max_size=12)


def scores_of(old: dict[str, float], characters: str = "") -> UnigramScores:
    model = models.Unigram([("<unk>", 0.0), *old.items()], 0)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), unk_token="<unk>")
    return UnigramScores(read_unigram(read_state(tokenizer)), list(characters))


def cut(tokenizer: Tokenizer, texts: list[str]) -> list[list[str]]:
    return [tokenizer.encode(text).tokens for text in texts]


@st.composite
def vocabularies(draw: st.DrawFn) -> tuple[dict[str, float], list[str], list[float]]:
    """Old pieces with scores, new pieces, and their log-probabilities."""
    letters = {letter: draw(COARSE) for letter in "abc"}
    chosen = draw(st.lists(st.sampled_from(LONGER), unique=True, max_size=16))
    split = draw(st.integers(0, len(chosen)))
    old = letters | {piece: draw(COARSE) for piece in chosen[:split]}
    new = chosen[split:]
    return old, new, [draw(st.floats(-30, -1)) for _ in new]


@pytest.mark.slow
@settings(derandomize=True, max_examples=60)
@given(vocabularies(), TEXTS)
def test_no_text_gets_more_tokens_and_none_loses_a_character(
    vocabulary: tuple[dict[str, float], list[str], list[float]], texts: list[str]
) -> None:
    old, new, likelihoods = vocabulary
    scores = scores_of(old)
    before = cut(scores.tokenizer([], np.zeros(0)), texts)
    base = cut(Tokenizer(models.Unigram([("<unk>", 0.0), *old.items()], 0)), texts)
    grown = scores.tokenizer(new, scores.calibrated(new, np.array(likelihoods)))
    after = cut(grown, texts)
    assert ["".join(tokens) for tokens in after] == texts
    for ours, shifted, theirs in zip(after, before, base, strict=True):
        assert len(ours) <= len(shifted) <= len(theirs)


@pytest.mark.slow
@settings(derandomize=True, max_examples=60)
@given(vocabularies())
def test_every_new_token_is_the_cut_of_its_own_string(
    vocabulary: tuple[dict[str, float], list[str], list[float]],
) -> None:
    old, new, likelihoods = vocabulary
    scores = scores_of(old)
    grown = scores.tokenizer(new, scores.calibrated(new, np.array(likelihoods)))
    assert cut(grown, new) == [[token] for token in new]


@pytest.mark.slow
@settings(derandomize=True, max_examples=60)
@given(st.lists(st.floats(-16, -2, width=32), min_size=12, max_size=12, unique=True), TEXTS)
def test_text_without_new_tokens_is_cut_as_before(values: list[float], texts: list[str]) -> None:
    # Scores of single precision, as SentencePiece stores them; ties have equal lengths here.
    old = dict(zip(["a", "b", "c", *LONGER[:9]], values, strict=True))
    scores = scores_of(old)
    base = Tokenizer(models.Unigram([("<unk>", 0.0), *old.items()], 0))
    for text, ours, theirs in zip(
        texts, cut(scores.tokenizer([], np.zeros(0)), texts), cut(base, texts), strict=True
    ):
        total = [sum(old[token] for token in tokens) for tokens in (ours, theirs)]
        assert total[0] == total[1], text


def test_a_new_token_inside_a_tied_cut_does_not_win_over_fewer_tokens() -> None:
    # ab + cd and a + b + c + d both sum to -8: any bonus for bc would make three tokens of two.
    scores = scores_of({**dict.fromkeys("abcd", -2.0), "ab": -4.0, "cd": -4.0})
    grown = scores.tokenizer(["bc"], scores.calibrated(["bc"], np.array([-1.0])))
    assert cut(grown, ["abcd", "abc", "bcd", "bc"]) == [
        ["ab", "cd"],
        ["a", "bc"],
        ["b", "cd"],
        ["bc"],
    ]


def test_scores_are_the_best_cut_less_a_margin() -> None:
    scores = scores_of({"a": -2.0, "b": -3.0, "ab": -4.0, "c": -5.0})
    found = scores.calibrated(["abc", "ca", "bb"], np.array([-1.0, -2.0, -3.0]))
    # abc = ab + c, ca = c + a, bb = b + b; the second is halfway down: 31.5 steps, to even 32.
    expected = [-9.0 - MARGIN, -7.0 - MARGIN * (1 + 32 / 64), -6.0 - MARGIN * (1 + 63 / 64)]
    assert found.tolist() == expected


def test_a_new_character_scores_what_an_unknown_one_does() -> None:
    scores = scores_of({"a": -2.0, "b": -3.0}, characters="ก")
    # Ten below the lowest score.
    assert scores.calibrated(["กa"], np.array([-1.0])).tolist() == [-15.0 - MARGIN]
    assert scores.vocabulary([], np.zeros(0))[-1] == ("ก", -13.0 - MARGIN)


def test_scores_of_zero_would_give_text_more_tokens() -> None:
    old = {"a": -2.0, "b": -2.0, "c": -2.0, "d": -2.0, "abcd": -3.0}
    scores = scores_of(old)
    usual = scores.tokenizer(["bc"], np.zeros(1))
    ours = scores.tokenizer(["bc"], scores.calibrated(["bc"], np.array([-1.0])))
    assert cut(usual, ["abcd", "abcdabcd"])[0] == ["abcd"]
    assert cut(ours, ["abcd"]) == [["abcd"]]
    dear = scores_of({**old, "abcd": -5.0})
    assert cut(dear.tokenizer(["bc"], np.zeros(1)), ["abcd"]) == [["a", "bc", "d"]]
    calibrated = dear.calibrated(["bc"], np.array([-1.0]))
    assert cut(dear.tokenizer(["bc"], calibrated), ["abcd"]) == [["abcd"]]


@pytest.mark.parametrize("length", [100, 3000])
def test_long_words_are_summed_exactly(length: int) -> None:
    old = {letter: float(np.float32(-7.3 - k / 3)) for k, letter in enumerate("abc")}
    scores = scores_of({**old, "ab": float(np.float32(-9.1)), "bc": float(np.float32(-9.7))})
    new = ["abab", "cab", "cca"]
    grown = scores.tokenizer(new, scores.calibrated(new, np.array([-3.0, -5.0, -4.0])))
    text = ("abcabbcacabccab" * length)[:length]
    (before,), (after,) = (cut(t, [text]) for t in (scores.tokenizer([], np.zeros(0)), grown))
    assert len(after) < len(before)
    vocabulary = dict(scores.vocabulary(new, scores.calibrated(new, np.array([-3.0, -5.0, -4.0]))))
    # Multiples of 2**-35 whose sum needs no rounding: whole numbers give the same.
    steps = [int(vocabulary[token] * 2**35) for token in after]
    assert sum(steps) == sum(vocabulary[token] for token in after) * 2**35
