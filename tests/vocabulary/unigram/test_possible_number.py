"""The number that an error names can be asked for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_vocab.vocabulary.limits import TooFewTokensError
from lightning_vocab.vocabulary.unigram.continued_unigram import ContinuedUnigram
from lightning_vocab.vocabulary.unigram.scores import Scores
from tests.vocabulary.unigram.unigrams import make_unigram_tokenizer

BASE = make_unigram_tokenizer()
SYLLABLES = st.sampled_from(["ze", "bra", "quar", "tz", "jun", "gle", "ขอบ", "คุณ", "ที่", "Nội"])
WORDS = st.lists(SYLLABLES, min_size=1, max_size=4).map("".join)
TEXTS = st.lists(WORDS, min_size=1, max_size=40).map(" ".join)


@pytest.mark.slow
@settings(derandomize=True)
@given(TEXTS, st.integers(1, 3), st.sampled_from([2, 4, 32]), st.booleans())
def test_as_many_tokens_as_the_error_names_are_found(
    text: str, min_frequency: int, max_token_length: int, new_characters: bool
) -> None:
    def grown(number: int) -> int:
        extender = ContinuedUnigram(
            number, min_frequency, max_token_length, new_characters=new_characters
        )
        return len(extender.extend(BASE, [text]).expansion.tokens)

    with pytest.raises(TooFewTokensError) as caught:
        grown(100_000)
    possible = caught.value.possible
    assert f"Only {possible} new tokens are possible" in str(caught.value)
    if possible:
        assert grown(possible) == possible


def test_what_is_left_of_a_larger_number_is_asked_for_until_it_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = {9: 4, 4: 3, 3: 3}
    real = ContinuedUnigram._most_used

    def most_used(*arguments: Any) -> tuple[list[str], Scores]:
        tokens, values = real(*arguments)
        number = left[arguments[-1]]
        return tokens[:number], values[:number]

    monkeypatch.setattr(ContinuedUnigram, "_most_used", most_used)
    text = "zebra quartz jungle vivid pumpkin lizard dragon velvet rhythm " * 3
    with pytest.raises(TooFewTokensError) as caught:
        ContinuedUnigram(9).extend(BASE, [text])
    assert caught.value.possible == 3
    assert len(ContinuedUnigram(3).extend(BASE, [text]).expansion.tokens) == 3
