"""Characters that stand in longer tokens of the base and are no token themselves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lightning_vocab.vocabulary.backend_state import read_state
from lightning_vocab.vocabulary.fingerprint import backend
from lightning_vocab.vocabulary.limits import TooFewTokensError
from lightning_vocab.vocabulary.unigram.continued_unigram import ContinuedUnigram
from lightning_vocab.vocabulary.unigram.layout import read_unigram
from lightning_vocab.vocabulary.unigram.scores import MARGIN, UnigramScores
from tests.vocabulary.unigram.unigrams import make_unigram_tokenizer

HIDDEN_X = {"▁": -2.0, **dict.fromkeys("abcde", -19.0), "abcd": -2.0, "xa": -19.0}
PLAIN = ["ab", "bc", "ca", "abc", "bca", "cab", "abca", "bcab", "cabc"]
HIDING = ["xa", "ax", "xab", "ya", "yb", "xc", "yxc", "bxy", "cx", "xyab"]
# Dear letters and cheap longer pieces: cuts with an unknown character and a long piece win.
LETTER = st.integers(-19, -12).map(float)
CHEAP = st.integers(-12, -1).map(float)
TEXTS = st.lists(
    st.lists(st.sampled_from([*"abcxyz", *PLAIN, *HIDING]), min_size=1, max_size=6).map("".join),
    min_size=12,
    max_size=24,
)


def tokenizer_of(pieces: Mapping[str, float]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), *pieces.items()], 0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def num_tokens(tokenizer: Tokenizer, text: str) -> int:
    """Length of the cut, each unknown character counted as one token."""
    found = tokenizer.encode(text, add_special_tokens=False)
    return sum(
        len(token) if i == 0 else 1 for token, i in zip(found.tokens, found.ids, strict=True)
    )


@st.composite
def bases(draw: st.DrawFn) -> dict[str, float]:
    """`x` and `y` stand in longer pieces alone, if at all, and `z` in none."""
    plain = draw(st.lists(st.sampled_from(PLAIN), unique=True, min_size=3))
    hiding = draw(st.lists(st.sampled_from(HIDING), unique=True, min_size=1, max_size=4))
    letters = {letter: draw(LETTER) for letter in "abc"}
    longer = {piece: draw(CHEAP) for piece in plain}
    return letters | longer | {piece: draw(LETTER) for piece in hiding}


def test_long_tokens_do_not_lower_the_score_of_unknown_characters() -> None:
    # `eded` would score -76: an unknown x at -86 makes `xa b c d` (-76) of `x abcd` (-88).
    base = tokenizer_of(HIDDEN_X)
    with pytest.raises(TooFewTokensError, match=r"Only 0 .*score less than its lowest") as caught:
        ContinuedUnigram(1, max_token_length=9).extend(base, ["edededede " * 10])
    assert caught.value.possible == 0
    scores = UnigramScores(read_unigram(read_state(base)), [])
    values = scores.calibrated(["eded"], np.array([-1.0]))
    assert not scores.is_high_enough(values).any()
    assert num_tokens(scores.tokenizer([], np.zeros(0)), "xabcd") == 2
    assert num_tokens(scores.tokenizer(["eded"], values), "xabcd") == 4


def test_tokens_above_the_lowest_score_are_still_added() -> None:
    base = tokenizer_of({**HIDDEN_X, "e": -4.0, "d": -3.0})
    grown = ContinuedUnigram(1, max_token_length=2).extend(base, ["edededede " * 10]).tokenizer
    assert len(grown) == len(base) + 1
    text = "xabcd"
    assert backend(grown).encode(text).tokens == backend(base).encode(text).tokens


@settings(derandomize=True)
@example({**dict.fromkeys("abc", -19.0), "abc": -2.0, "xa": -19.0}, ["xabc"], ["cbcbcb"], False)
@given(bases(), TEXTS, st.lists(st.text("abcz", min_size=2, max_size=5), min_size=1), st.booleans())
def test_no_text_gets_more_tokens_where_unknown_characters_stand_in_longer_pieces(
    pieces: dict[str, float], texts: list[str], drawn: list[str], has_new: bool
) -> None:
    new = sorted({token for token in drawn if has_new or "z" not in token} - pieces.keys())
    assume(new)
    base = tokenizer_of(pieces)
    scores = UnigramScores(read_unigram(read_state(base)), ["z"] if has_new else [])
    values = scores.calibrated(new, np.linspace(-9.0, -1.0, len(new)))
    is_kept = scores.is_high_enough(values)
    kept = [token for token, keep in zip(new, is_kept.tolist(), strict=True) if keep]
    grown = scores.tokenizer(kept, values[is_kept])
    model = Tokenizer(models.Unigram([("<unk>", 0.0), *pieces.items()], 0))
    for text in texts:
        assert num_tokens(grown, text) <= num_tokens(model, text), text


def test_hidden_characters_are_found_and_those_of_added_and_byte_tokens_are_none() -> None:
    found = read_unigram(read_state(tokenizer_of(HIDDEN_X)))
    assert np.flatnonzero(found.is_hidden).tolist() == [ord("x")]
    for byte_fallback in (False, True):
        base = make_unigram_tokenizer(byte_fallback=byte_fallback)  # <pad>, <0x00>, but no <
        assert not read_unigram(read_state(base)).hides_characters


def test_hidden_characters_stay_unknown_and_others_become_tokens_at_the_lowest_score() -> None:
    base = tokenizer_of(HIDDEN_X)
    grown = ContinuedUnigram(1).extend(base, ["x x x x ก ก"])
    assert [token.token for token in grown.expansion.tokens] == ["ก"]
    scores = UnigramScores(read_unigram(read_state(base)), ["ก"])
    assert scores.vocabulary([], np.zeros(0))[-1] == ("ก", -19.0 - MARGIN)


def test_an_added_token_that_would_lower_the_score_of_unknown_characters_is_refused() -> None:
    base = tokenizer_of(HIDDEN_X)
    base.add_tokens([AddedToken("deed")])
    with pytest.raises(ValueError, match=r"'deed' cannot keep its id.*add such tokens afterwards"):
        ContinuedUnigram(1).extend(base, ["edededede " * 10])
