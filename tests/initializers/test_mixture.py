from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lightning_vocab.initializers import Mean, SubwordMean
from lightning_vocab.initializers.keep import Keep
from lightning_vocab.initializers.mixture import Mixture, Separate
from lightning_vocab.initializers.zeros import Zeros
from tests.initializers.contexts import make_context

ROWS = torch.randn(306, 4, generator=torch.Generator().manual_seed(1))
HEAD = torch.randn(306, 4, generator=torch.Generator().manual_seed(2))
BIAS = torch.arange(306.0)


def test_each_kind_of_token_is_made_by_its_method() -> None:
    context = make_context(
        ROWS, HEAD, output_bias=BIAS, words=["catdog", "<|tool|>"], slots={301: "textlog"}
    )
    slot, word, special = context.expansion.tokens
    tokens = (slot, replace(word, kind="text"), special)
    context = replace(context, expansion=replace(context.expansion, tokens=tokens))
    assert [token.kind for token in tokens] == ["slot", "text", "special"]
    mixed = Mixture(text=SubwordMean(), special=Mean(noise=0), slot=Zeros(in_head=True))
    inputs, outputs = mixed.rows(context)
    subword, mean = SubwordMean().rows(context), Mean(noise=0).rows(context)
    for rows, composed, average in zip((inputs, outputs), subword, mean, strict=True):
        assert rows is not None
        assert composed is not None
        assert average is not None
        assert torch.equal(rows, torch.stack([torch.zeros(4), composed[1], average[2]]))
    biases = mixed.bias(context)
    assert biases[1] == SubwordMean().bias(context)[1]
    assert biases[2] == Mean().bias(context)[2]


def test_kinds_without_a_method_take_the_one_before() -> None:
    context = make_context(ROWS, words=["catdog", "<|tool|>"], slots={301: "textlog"})
    alone, mixed = SubwordMean().rows(context)[0], Mixture(SubwordMean()).rows(context)[0]
    assert torch.equal(alone, mixed)


def test_input_and_output_rows_come_from_two_methods() -> None:
    context = make_context(ROWS, HEAD, output_bias=BIAS)
    method = Separate(inputs=Zeros(in_head=True), outputs=SubwordMean())
    inputs, outputs = method.rows(context)
    expected = SubwordMean().rows(context)[1]
    assert outputs is not None
    assert expected is not None
    assert not inputs.any()
    assert torch.equal(outputs, expected)
    assert torch.equal(method.bias(context), SubwordMean().bias(context))


def test_two_methods_for_one_matrix_are_refused() -> None:
    with pytest.raises(ValueError, match="this model is tied"):
        Separate(Mean(), Mean()).rows(make_context(ROWS))


@pytest.mark.parametrize("head", [None, HEAD])
def test_zeros_in_a_head_must_be_asked_for(head: torch.Tensor | None) -> None:
    context = make_context(ROWS, head)
    with pytest.raises(ValueError, match="in_head=True"):
        Zeros().rows(context)
    inputs, outputs = Zeros(in_head=True).rows(context)
    assert not inputs.any()
    assert (outputs is None) == (head is None)
    assert outputs is None or not outputs.any()


def test_rows_that_are_there_are_kept() -> None:
    # Three words behind 300 tokens: ids 300 to 302, for which this base of 306 rows has rows.
    context = make_context(ROWS, HEAD, output_bias=BIAS)
    grown = context.expansion.new_ids
    inputs, outputs = Keep().rows(context)
    assert torch.equal(inputs, ROWS[list(grown)])
    assert outputs is not None
    assert torch.equal(outputs, HEAD[list(grown)])
    assert Keep().bias(context).tolist() == list(map(float, grown))


def test_rows_that_are_not_there_cannot_be_kept() -> None:
    with pytest.raises(ValueError, match="3 new tokens beyond them"):
        Keep().rows(make_context(ROWS[:300]))
