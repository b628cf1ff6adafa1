from __future__ import annotations

import re

import numpy as np
import pytest

from lightning_vocab.planning.advice import Rules, advise, advise_for_list
from lightning_vocab.planning.table import headline
from tests.planning.plans import KNOWN, UNKNOWN, plan

RULES = Rules()
HALF = [100] * 500  # 500 tokens that save a tenth of a percent each: half of 100,000


def test_text_that_the_base_covers_is_not_worth_an_expansion() -> None:
    advice = advise(plan([20] * 400), RULES)  # 8,000 of 100,000 tokens
    assert (advice.method, advice.num_new_tokens) == ("none", 0)
    assert "The base covers this text well" in advice.reasons[0]
    assert "8.0% of the held-out tokens, less than 10%" in advice.reasons[0]


def test_a_text_with_much_to_gain_is_expanded_with_reasons() -> None:
    advice = advise(plan(HALF), RULES)
    assert (advice.method, advice.num_new_tokens) == ("continued_bpe", 500)
    assert advice.gain == pytest.approx(0.5)
    assert "0.250 tokens per byte become 0.125" in advice.reasons[0]
    assert "SubwordMean" in advice.reasons[-1]


def test_rows_that_training_hardly_shows_are_left_out() -> None:
    # 300 tokens of 100 occurrences, then 300 of 40.
    made = [100] * 300 + [40] * 300
    assert advise(plan(made, floor=50), RULES).num_new_tokens == 300
    # Five times the text: 200 occurrences each.
    five_times = plan(made, floor=50, training_tokens=5 * 70_000)
    assert advise(five_times, RULES).num_new_tokens == 600


def test_a_gain_that_training_cannot_show_is_too_little_text() -> None:
    advice = advise(plan(HALF, floor=101), RULES)
    assert advice.method == "none"
    assert "too little text" in advice.reasons[0]
    assert "50.0%" in advice.reasons[0]


def test_the_size_ends_where_compute_per_byte_is_lowest() -> None:
    # A token costs 2 * 10,000 + 2 * 16 * rows FLOP; a row adds 32 to 52,000.
    made = np.linspace(400, 0, 800).astype(int).tolist()
    found = plan([each // 3 for each in made], model=KNOWN)
    flop = found.flop_per_byte()
    assert flop is not None
    tokens = 100_000 - np.cumsum([0, *(each // 3 for each in made)])
    expected = tokens / 400_000 * (20_000 + 32 * (1000 + np.arange(801)))
    np.testing.assert_allclose(flop, expected)
    lowest = int(expected.argmin())
    assert 0 < lowest < 800
    advice = advise(found, RULES)
    assert advice.num_new_tokens == lowest // 10 * 10
    assert f"Compute per byte is lowest with {lowest:,} new tokens" in advice.reasons[1]


def test_padded_rows_cost_nothing_until_they_are_full() -> None:
    found = plan(HALF, model=KNOWN, base_rows=1200)
    assert [found.num_added_rows(size) for size in (0, 200, 201, 500)] == [0, 0, 1, 300]
    cost = found.point(500).cost
    assert cost is not None
    assert cost.added_parameters == 300 * 16


def test_without_a_known_size_the_last_thousand_tokens_decide() -> None:
    made = [10] * 2000 + [1] * 3000  # 1,000 tokens save 10 %, later 1 %
    assert advise(plan(made), RULES).num_new_tokens == 5000
    rules = Rules(min_gain_per_thousand=0.05)
    # At 2,500 the last 1,000 are 500 of 10 and 500 of 1: 5.5 %; at 2,555 they reach 5 %.
    advice = advise(plan(made), rules)
    assert advice.num_new_tokens == 2500
    assert "Up to 2,555 new tokens" in advice.reasons[1]
    assert "nobody knows" in advice.reasons[1]


def test_a_gain_of_few_tokens_needs_few_tokens() -> None:
    advice = advise(plan([300] * 100 + [10] * 300), RULES)  # 30 % and 3 %
    assert (advice.method, advice.num_new_tokens) == ("continued_bpe", 100)
    assert advice.gain == pytest.approx(0.3)
    assert "30.0% of the held-out tokens are saved by 100 new tokens" in advice.reasons[0]
    assert "That is 91% of the 33.0% that 400 new tokens would save" in advice.reasons[1]
    assert "400 is the limit where the gain ends, not the advice" in advice.reasons[1]


@pytest.mark.parametrize("share", [-0.1, 7.0, float("nan")])
def test_a_share_to_be_saved_is_between_nothing_and_all(share: float) -> None:
    with pytest.raises(ValueError, match="Expected min_gain between 0 and 1"):
        Rules(min_gain=share)
    with pytest.raises(ValueError, match="Expected min_gain_per_thousand between 0 and 1"):
        Rules(min_gain_per_thousand=share)


def test_one_token_is_spoken_of_in_the_singular() -> None:
    advice = advise(plan([50_000]), RULES)
    assert headline(advice).startswith("Expand by 1 token, ")
    listed = advise_for_list(plan(HALF, num_slots=1), 1, 0.5, fixed_size=True)
    said = " ".join([*advice.reasons, *listed.reasons])
    assert not re.search(r"\b1 (new |listed )?(tokens|slots|rows|times)", said)


def test_a_fixed_size_takes_slots_or_nothing() -> None:
    advice = advise(plan(HALF, num_slots=271), RULES, fixed_size=True)
    assert (advice.method, advice.num_new_tokens) == ("continued_bpe_into_slots", 271)
    assert advice.gain == pytest.approx(0.271)
    none = advise(plan(HALF, num_slots=99), RULES, fixed_size=True)
    assert none.method == "none"
    assert "99 slots" in none.reasons[0]


def test_listed_tokens_are_added_or_take_slots() -> None:
    found = plan(HALF, model=UNKNOWN, num_slots=3)
    assert advise_for_list(found, 5, 0.01, fixed_size=False).method == "add_tokens"
    assert advise_for_list(found, 3, 0.01, fixed_size=True).method == "reuse_slots"
    with pytest.raises(ValueError, match=r"3 slots, as no matrix may grow, got 5 tokens"):
        advise_for_list(found, 5, 0.01, fixed_size=True)
    longer = advise_for_list(found, 5, -0.01, fixed_size=False)
    assert "They make the text longer" in longer.reasons[-1]


def test_a_point_holds_each_sources_own_gain_and_the_gain_of_all() -> None:
    point = plan(HALF, held_out={"th": HALF, "en": [0] * 500}).point(500)
    assert point.change_by_source == {"th": pytest.approx(-0.5), "en": 0.0}
    assert point.change == pytest.approx(-0.25)
    assert point.effective_context_bytes == pytest.approx(100 * 800_000 / 150_000)
    assert point.cost is None
    assert point.flop_per_byte is None


def test_tokens_below_the_floor_are_counted_at_the_size_itself() -> None:
    found = plan([100, 60, 40], floor=50)
    assert [found.point(size).tokens_below_floor for size in range(4)] == [0, 0, 0, 1]
