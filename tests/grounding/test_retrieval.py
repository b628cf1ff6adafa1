from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from lightning_vocab.data.rows import Row
from lightning_vocab.grounding.retrieval import Retrieval, retrieve
from lightning_vocab.initializers import Mean, Normal
from lightning_vocab.loss import NextTokenLoss
from lightning_vocab.rows import expand_model
from lightning_vocab.rows.locate import find_split
from tests.conftest import make_model
from tests.expanded import make_expanded

NEW = [300, 301, 302, 303, 304, 305]


def grown(
    tokenizer: PreTrainedTokenizerFast, *, tied: bool = True, noise: float = 1.0, bias: bool = False
) -> Any:
    """A pico model with six new rows in two of four padded rows and behind them."""
    model: Any = make_model(num_rows=302, tied=tied)
    if bias:
        model.lm_head.bias = torch.nn.Parameter(torch.randn(302))
    expanded = make_expanded(tokenizer, [f"<|{id}|>" for id in NEW], base_rows=302)
    expand_model(model, expanded, Normal() if noise else Mean(noise=0.0))
    if bias:
        model.lm_head.rows.new_bias.data = torch.randn(len(NEW))
    return model


def row(context: Sequence[int], answer: Sequence[int]) -> Row:
    return Row(input_ids=np.array([*context, *answer]), num_context=len(context))


def random_rows(count: int) -> list[Row]:
    """Contexts and answers of several lengths; an answer ends in an old token."""
    draw = np.random.default_rng(3)
    lengths = draw.integers(1, 5, count).tolist()
    return [
        row(draw.integers(1, 300, 3 + n).tolist(), [*draw.choice(NEW, n).tolist(), 0])
        for n in lengths
    ]


def naive(model: Any, rows: Sequence[Row]) -> tuple[float, float]:
    """Top-1 share and mean reciprocal rank, a row and a token at a time, from all logits."""
    model.eval()
    hits, reciprocals = [], []
    for each in rows:
        ids = each["input_ids"]
        logits = model(input_ids=torch.tensor(ids).unsqueeze(0)).logits[0].double()
        ranks = []
        for place in range(each["num_context"], len(ids)):
            if ids[place] in NEW:
                scores = logits[place - 1, NEW]
                ranks.append(1 + int((scores > logits[place - 1, ids[place]]).sum()))
        hits.append(all(rank == 1 for rank in ranks))
        reciprocals += [1 / rank for rank in ranks]
    return sum(hits) / len(hits), sum(reciprocals) / len(reciprocals)


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("sizes", [(1, 1), (3, 13), (64, 1 << 20)])
def test_it_equals_the_ranks_among_all_logits(
    tied: bool, bias: bool, sizes: tuple[int, int], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = grown(tokenizer, tied=tied, bias=bias)
    rows = random_rows(17)
    found = retrieve(NextTokenLoss(model), rows, batch_size=sizes[0], block_elements=sizes[1])
    assert found[:2] == pytest.approx(naive(model, rows))
    assert found.num_rows == 17
    assert found.num_tokens == sum(
        len(each["input_ids"]) - each["num_context"] - 1 for each in rows
    )


def test_a_model_without_a_backbone_of_its_own_is_ranked_by_its_logits(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    loss, rows = NextTokenLoss(grown(tokenizer)), random_rows(9)
    streamed = retrieve(loss, rows)
    loss.is_streamed = False
    assert retrieve(loss, rows) == pytest.approx(streamed)


def with_rows(tokenizer: PreTrainedTokenizerFast, rows: torch.Tensor) -> NextTokenLoss:
    """An untied model with these output rows of the new tokens."""
    model = grown(tokenizer, tied=False)
    split = find_split(model)
    assert split is not None
    split[1].rows.new.data = rows
    return NextTokenLoss(model)


def state_at(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> torch.Tensor:
    """The last hidden state behind old ids."""
    model = grown(tokenizer, tied=False)
    with torch.no_grad():
        states: torch.Tensor = model.base_model(torch.tensor([ids])).last_hidden_state
    return states[0, -1]


def test_a_model_that_knows_every_token_has_one_and_one(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    contexts = [[5, 6 + number] for number in range(len(NEW))]
    states = torch.stack([state_at(tokenizer, context) for context in contexts])
    # The pseudo-inverse gives each token the highest score at its own state and 0 elsewhere.
    rows = [row(context, [id]) for context, id in zip(contexts, NEW, strict=True)]
    found = retrieve(with_rows(tokenizer, torch.linalg.pinv(states).T), rows)
    assert found == Retrieval(1.0, 1.0, 6, 6)


def test_a_model_that_prefers_every_other_token_has_the_last_rank(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    state = state_at(tokenizer, [5, 6])
    worst = torch.arange(6, 0, -1.0).unsqueeze(1) * state  # the last new token scores lowest
    found = retrieve(with_rows(tokenizer, worst), [row([5, 6], [305])])
    assert found == pytest.approx((0.0, 1 / 6, 1, 1))


def test_one_wrong_token_of_an_answer_loses_the_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    state = state_at(tokenizer, [5, 6])
    rows = torch.zeros(6, len(state))
    rows[0] = state  # 300 wins behind the context, whatever follows
    found = retrieve(with_rows(tokenizer, rows), [row([5, 6], [300, 301])])
    assert found.top1_share == 0.0
    assert found.num_tokens == 2
    assert found.mean_reciprocal_rank < 1.0


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_that_are_all_alike_find_nothing_by_luck(
    dtype: torch.dtype, streamed: bool, tokenizer: PreTrainedTokenizerFast
) -> None:
    loss = NextTokenLoss(grown(tokenizer, noise=0.0).to(dtype))
    loss.is_streamed = streamed
    found = retrieve(loss, random_rows(20))
    assert found.top1_share == 0.0
    assert found.mean_reciprocal_rank == pytest.approx(1 / len(NEW))


def test_an_answer_that_is_not_a_number_ranks_last(tokenizer: PreTrainedTokenizerFast) -> None:
    loss = with_rows(tokenizer, torch.full((6, 32), torch.nan))
    assert retrieve(loss, [row([5], [300])]).mean_reciprocal_rank == pytest.approx(1 / 6)


def test_tokens_of_one_description_are_all_right(tokenizer: PreTrainedTokenizerFast) -> None:
    state = state_at(tokenizer, [5, 6])
    scores = torch.tensor([3.0, 2.0, 2.5, 0.0, 0.0, 0.0]).unsqueeze(1) * state / state.norm() ** 2
    loss = with_rows(tokenizer, scores)
    shared = [row([5, 6], [300]), row([5, 6], [302])]
    assert retrieve(loss, shared) == Retrieval(1.0, 1.0, 2, 2)
    # 301 is behind 300 and 302, which are right for the description too.
    assert retrieve(loss, [*shared, row([5, 6], [301])]) == Retrieval(1.0, 1.0, 3, 3)
    # 302 is no answer here, and in front of 301.
    found = retrieve(loss, [row([5, 6], [300]), row([5, 6], [301])])
    assert found == pytest.approx((0.5, 0.75, 2, 2))


def test_the_same_row_twice_counts_twice(tokenizer: PreTrainedTokenizerFast) -> None:
    loss, rows = NextTokenLoss(grown(tokenizer)), random_rows(5)
    once, twice = retrieve(loss, rows), retrieve(loss, rows * 2)
    assert twice[:2] == pytest.approx(once[:2])
    assert twice[2:] == (2 * once.num_rows, 2 * once.num_tokens)


def test_modes_and_random_numbers_are_left_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    model = grown(tokenizer).train()
    model.base_model.layers[0].eval()
    modes = [part.training for part in model.modules()]
    state = torch.get_rng_state()
    retrieve(NextTokenLoss(model), random_rows(3))
    assert modes == [part.training for part in model.modules()]
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("bad", [row([5, 6], [7, 0]), row([], [300]), row([5, 300], [7])])
def test_an_answer_without_a_question_is_refused(
    bad: Row, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(ValueError, match="lead from a description to its tokens"):
        retrieve(NextTokenLoss(grown(tokenizer)), [row([5], [300]), bad])


def test_no_row_and_a_model_without_new_rows_are_refused(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(ValueError, match="with new rows, 0 rows"):
        retrieve(NextTokenLoss(grown(tokenizer)), [])
    with pytest.raises(ValueError, match="without new rows"):
        retrieve(NextTokenLoss(make_model()), [row([5], [7])])
    with pytest.raises(ValueError, match="batch_size=0"):
        retrieve(NextTokenLoss(grown(tokenizer)), [row([5], [300])], batch_size=0)
