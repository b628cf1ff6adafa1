from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_vocab.initializers import Mean, RowContext
from lightning_vocab.initializers.combined import CombinedRows, RowWeights
from tests.initializers.contexts import make_context


class TwoOfThree(CombinedRows):
    """Weights for the first and the last of three tokens."""

    def weights(self, context: RowContext) -> RowWeights:
        return RowWeights(
            is_covered=torch.tensor([True, False, True]),
            ids=torch.tensor([5, 7, 9]),
            weights=torch.tensor([0.25, 0.75, 2.0]),
            counts=torch.tensor([2, 1]),
        )


def matrices(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    drawn = torch.randn(2, 300, 4, generator=torch.Generator().manual_seed(3))
    return drawn[0].to(dtype), drawn[1].to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("tied", [True, False])
def test_rows_are_the_weighted_sums_and_the_fallback_makes_the_others(
    tied: bool, dtype: torch.dtype
) -> None:
    inputs, outputs = matrices(dtype)
    context = make_context(inputs, None if tied else outputs)
    method = TwoOfThree(Mean(noise=0))
    made = method.rows(context)
    for rows, base in zip(made, (inputs, outputs), strict=True):
        if tied and base is outputs:
            assert rows is None
            continue
        assert rows is not None
        wide = base.to(torch.promote_types(dtype, torch.float32))
        expected = torch.stack([0.25 * wide[5] + 0.75 * wide[7], wide.mean(0), 2 * wide[9]])
        torch.testing.assert_close(rows, expected)


def test_bias_is_the_weighted_mean_of_the_base_biases() -> None:
    inputs, outputs = matrices()
    bias = torch.arange(300.0)
    context = make_context(inputs, outputs, output_bias=bias)
    made = TwoOfThree(Mean()).bias(context)
    assert made.tolist() == pytest.approx([0.25 * 5 + 0.75 * 7, 149.5, 9.0])


def test_what_is_left_to_the_fallback_is_said() -> None:
    method = TwoOfThree(Mean())
    method.rows(make_context(*matrices()))
    assert method.coverage is not None
    assert method.coverage.share == pytest.approx(2 / 3)
    assert str(method.coverage) == (
        "TwoOfThree made 2 of 3 new tokens (66.7%); Mean made the other 1: 'cats'."
    )


def test_without_a_fallback_a_token_without_weights_is_an_error() -> None:
    for call in (TwoOfThree(None).rows, TwoOfThree(None).bias):
        context = make_context(*matrices(), output_bias=torch.zeros(300))
        with pytest.raises(ValueError, match=r"nothing to make 1 of 3 new tokens .* 'cats'"):
            call(context)


def test_the_base_of_some_tokens_is_the_base_of_all() -> None:
    # Slot 301 becomes a new token: for the other new token, too, its row is none of the base.
    context = make_context(torch.ones(306, 2), words=["catdog"], slots={301: "textlog"})
    part = context.only([1])
    assert [token.id for token in part.expansion.tokens] == [303]
    assert part.base_ids.tolist() == context.base_ids.tolist()
    assert part.pieces.counts.tolist() == [2]
