from __future__ import annotations

import json

import numpy as np
import pytest
from rich.console import Console

from lightning_vocab.vocabulary import NewToken, TokenKind
from lightning_vocab.vocabulary.measuring.new_token_use import NewTokenUse
from lightning_vocab.vocabulary.measuring.token_frequency import TokenFrequency


def new(id_: int, kind: TokenKind = "text") -> NewToken:
    return NewToken(id=id_, token=f"t{id_}", surface=f" w{id_}", kind=kind, pieces=(1, 2))


TOKENS = (new(10), new(11), new(12, "special"), new(13))
COUNTS = np.array([40, 0, 1, 9])
RUN = TokenFrequency(TOKENS, COUNTS, num_text_tokens=1000, num_training_tokens=20_000)


def test_expected_updates_are_the_share_of_the_text_times_the_training() -> None:
    assert RUN.expected_updates.tolist() == [800.0, 0.0, 20.0, 180.0]


def test_rows_below_the_floor_come_rarest_first_and_the_floor_itself_is_enough() -> None:
    assert RUN.below(180) == [1, 2]
    assert RUN.below(180.1) == [1, 2, 3]
    assert RUN.below(0) == []


def test_an_unseen_token_is_bounded_by_the_rule_of_three() -> None:
    # P(no occurrence) = exp(-rate * tokens of the text) is 5 % at this rate.
    rate = RUN.unseen_at_most / RUN.num_training_tokens
    assert np.exp(-rate * RUN.num_text_tokens) == pytest.approx(0.05, abs=0.001)


def test_rows_below_the_floor_are_listed() -> None:
    found = json.loads(json.dumps(RUN.to_dict(floor=100)))
    assert [row["id"] for row in found["rows_below_floor"]] == [11, 12]
    assert found["rows_below_floor"][1]["expected_updates"] == 20.0
    assert found["median_expected_updates"] == 100.0
    console = Console(width=120, record=True, file=None, quiet=False)
    with console.capture() as said:
        console.print(RUN.table(floor=100, max_rows=1))
    assert "2 of 4 new rows" in said.get()
    assert "w11" in said.get()
    assert "w12" not in said.get()


@pytest.mark.parametrize(
    ("counts", "text", "training"),
    [([1, 2], 1000, 10), ([900, 200, 0, 0], 1000, 10), ([0] * 4, 0, 10), ([0] * 4, 10, 0)],
)
def test_numbers_that_do_not_fit_are_refused(counts: list[int], text: int, training: int) -> None:
    with pytest.raises(ValueError, match="Expected"):
        TokenFrequency(TOKENS, np.array(counts, np.int64), text, training)


def test_use_of_new_tokens_by_kind_and_the_tail_never_seen() -> None:
    use = NewTokenUse(TOKENS, COUNTS, num_text_tokens=1000)
    assert use.never_seen == [TOKENS[1]]
    found = json.loads(json.dumps(use.to_dict()))
    assert found["used_share"] == 0.75
    assert found["used_share_by_kind"] == {"text": 2 / 3, "special": 1.0}
    assert found["share_of_text_tokens"] == 0.05
    assert found["num_never_seen"] == 1
    assert [row["count"] for row in found["counts"]] == [40, 0, 1, 9]
    assert found["count_quartiles"] == [0.75, 5.0, 16.75]
