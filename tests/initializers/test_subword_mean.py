from __future__ import annotations

import dataclasses
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from lightning_vocab.initializers import SubwordMean
from lightning_vocab.initializers.piece_weights import PieceWeights
from lightning_vocab.initializers.scripts import script_of
from lightning_vocab.initializers.subword_mean import InputNorm
from tests.initializers.contexts import id_of, make_context

CAT, DOG, S = id_of("cat"), id_of("dog"), id_of("s")
ROOT2 = 2**0.5


def make_rows(num_rows: int = 300) -> Tensor:
    """Rows of norm 2 for letters, of norm 10 for the rest; "cat", "dog" and "s" by hand."""
    rows = torch.tensor([[10.0, 0.0]]).repeat(num_rows, 1)
    for letters in ("a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n"):
        rows[id_of(letters)] = torch.tensor([0.0, 2.0])
    context = make_context(torch.ones(300, 2))
    for id, text in enumerate(context.texts(range(300))):
        if text.strip().isascii() and text.strip().isalpha():
            rows[id] = torch.tensor([0.0, 2.0])
    rows[CAT], rows[DOG], rows[S] = (
        torch.tensor(row) for row in ([4.0, 0.0], [0.0, 4.0], [0.0, 8.0])
    )
    return rows


def test_an_input_row_is_the_mean_of_its_pieces_at_its_script_s_norm() -> None:
    # mean [2, 2] has norm 2 * sqrt(2); letters have the median norm 2.
    inputs, _ = SubwordMean().rows(make_context(make_rows(), make_rows(), words=["catdog"]))
    assert torch.allclose(inputs, torch.tensor([[ROOT2, ROOT2]]))


def test_a_token_without_letters_takes_the_norm_of_such_tokens() -> None:
    inputs, _ = SubwordMean().rows(make_context(make_rows(), make_rows(), words=["!?"]))
    assert inputs.norm().item() == pytest.approx(10)


def test_a_script_that_the_base_lacks_takes_the_norm_of_all_rows() -> None:
    # Single bytes of Cyrillic letters have no script; most of the 300 rows have norm 10.
    rows = make_rows()
    assert rows.norm(dim=1).quantile(0.5) == 10
    inputs, _ = SubwordMean().rows(make_context(rows, rows, words=["модель"]))
    assert inputs.norm().item() == pytest.approx(10)


def test_padded_rows_have_no_say_in_the_norm() -> None:
    rows = make_rows(700)
    rows[300:] = 1e6
    inputs, _ = SubwordMean().rows(make_context(rows, rows, words=["модель"]))
    assert inputs.norm().item() == pytest.approx(10)


def test_an_output_row_is_weighted_by_characters_and_not_rescaled() -> None:
    # "cat" has 3 characters, "s" has 1: (3 * [4, 0] + [0, 8]) / 4.
    _, outputs = SubwordMean().rows(make_context(make_rows(), make_rows(), words=["cats"]))
    assert outputs is not None
    assert torch.allclose(outputs, torch.tensor([[3.0, 2.0]]))


def test_a_part_of_a_character_weighs_one() -> None:
    rows = make_rows()
    first, second = make_context(rows, words=["д"]).pieces.ids.tolist()
    rows[first], rows[second] = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 6.0])
    _, outputs = SubwordMean().rows(make_context(rows, rows, words=["д"]))
    assert outputs is not None
    assert torch.allclose(outputs, torch.tensor([[1.0, 3.0]]))


def test_the_arguments_turn_both_asymmetries_off() -> None:
    plain = SubwordMean(input_norm="none", output_weights="uniform")
    inputs, outputs = plain.rows(make_context(make_rows(), make_rows() + 1, words=["cats"]))
    assert outputs is not None
    assert torch.allclose(inputs, torch.tensor([[2.0, 4.0]]))
    assert torch.allclose(outputs, torch.tensor([[3.0, 5.0]]))


@pytest.mark.parametrize("arguments", [{}, {"input_norm": "none", "output_weights": "uniform"}])
def test_a_tied_row_is_the_plain_mean(arguments: dict[str, Any]) -> None:
    inputs, outputs = SubwordMean(**arguments).rows(make_context(make_rows(), words=["cats"]))
    assert outputs is None
    assert torch.allclose(inputs, torch.tensor([[2.0, 4.0]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_one_piece_is_copied_bit_for_bit(dtype: torch.dtype) -> None:
    rows = torch.randn(300, 8).to(dtype)
    context = make_context(rows, rows * 3, words=["catdog"])
    token = dataclasses.replace(context.expansion.tokens[0], pieces=(CAT,))
    expansion = dataclasses.replace(context.expansion, tokens=(token,))
    context = dataclasses.replace(context, expansion=expansion)
    inputs, outputs = SubwordMean().rows(context)
    assert outputs is not None
    assert torch.equal(inputs[0].to(dtype), rows[CAT])
    assert torch.equal(outputs[0].to(dtype), rows[CAT] * 3)


def test_pieces_that_cancel_stay_zero() -> None:
    rows = make_rows()
    rows[DOG] = -rows[CAT]
    inputs, _ = SubwordMean().rows(make_context(rows, rows, words=["catdog"]))
    assert inputs.tolist() == [[0.0, 0.0]]


def test_a_word_s_row_does_not_depend_on_the_others() -> None:
    rows, words = torch.randn(300, 8), ["catdog", "cats", "<|tool|>", "textlog", "модель"]
    together = SubwordMean().rows(make_context(rows, rows.flip(0), words=words))
    reverse = SubwordMean().rows(make_context(rows, rows.flip(0), words=words[::-1]))
    for made, other in zip(together, reverse, strict=True):
        assert made is not None
        assert other is not None
        assert torch.equal(made, other.flip(0))
    alone = SubwordMean().rows(make_context(rows, rows.flip(0), words=["textlog"]))[0]
    assert torch.equal(alone[0], together[0][3])


def test_half_precision_is_computed_in_float32() -> None:
    rows = torch.randn(300, 8).bfloat16()
    inputs, outputs = SubwordMean().rows(make_context(rows, rows))
    expected_inputs, expected_outputs = SubwordMean().rows(make_context(rows.float(), rows.float()))
    assert outputs is not None
    assert expected_outputs is not None
    assert torch.equal(inputs, expected_inputs)
    assert torch.equal(outputs, expected_outputs)


@pytest.mark.parametrize(("tied", "expected"), [(False, 2.5), (True, 4.0)])
def test_the_bias_is_composed_like_the_output_row(tied: bool, expected: float) -> None:
    bias = torch.zeros(300)
    bias[CAT], bias[S] = 1.0, 7.0  # (3 * 1 + 7) / 4, or (1 + 7) / 2 where one row serves both
    outputs = None if tied else make_rows()
    context = make_context(make_rows(), outputs, words=["cats"], output_bias=bias)
    assert SubwordMean().bias(context).tolist() == [expected]


def test_all_takes_the_norm_of_all_rows_with_a_token() -> None:
    rows = make_rows(310)
    rows[300:] = 1e6  # padded rows
    inputs, _ = SubwordMean(input_norm="all").rows(make_context(rows, rows, words=["catdog"]))
    assert torch.allclose(inputs, 10 * torch.tensor([[ROOT2, ROOT2]]) / 2)


def test_each_end_has_weights_of_its_own() -> None:
    # "cat" [4, 0] and "s" [0, 8]: the first weighs 1/2 at the input, twice the second at the head.
    method = SubwordMean("none", output_weights="position", input_weights="position")
    inputs, outputs = method.rows(make_context(make_rows(), make_rows(), words=["cats"]))
    assert outputs is not None
    assert torch.allclose(inputs, torch.tensor([[4 / 3, 16 / 3]]))
    assert torch.allclose(outputs, torch.tensor([[8 / 3, 8 / 3]]))


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("uniform", [2.0, 4.0]),
        ("characters", [3.0, 2.0]),
        ("bytes", [3.0, 2.0]),
        ("position", [4 / 3, 16 / 3]),
        ("first", [4.0, 0.0]),
        ("last", [0.0, 8.0]),
    ],
)
def test_a_tied_row_takes_the_weights_asked_for(
    weights: PieceWeights, expected: list[float]
) -> None:
    bias = torch.zeros(300)
    bias[CAT], bias[S] = 4.0, 0.0
    context = make_context(make_rows(), words=["cats"], output_bias=bias)
    method = SubwordMean(tied_weights=weights)
    assert torch.allclose(method.rows(context)[0], torch.tensor([expected]))
    assert method.bias(context).item() == pytest.approx(expected[0])


@pytest.mark.parametrize("weights", get_args(PieceWeights))
@pytest.mark.parametrize("norm", get_args(InputNorm))
def test_all_forms_agree_with_a_loop_over_tokens(norm: InputNorm, weights: PieceWeights) -> None:
    rows, head = torch.randn(300, 6), torch.randn(300, 6)
    context = make_context(rows, head, words=["catdog", "catcats", "!?", "x" * 9])
    made = SubwordMean(norm, weights, weights).rows(context)
    all_norms = rows.double().norm(dim=1)
    scripts = [script_of(text) for text in context.texts(range(300))]
    for end, base, found in zip(("input", "output"), (rows, head), made, strict=True):
        assert found is not None
        for token, row in zip(context.expansion.tokens, found, strict=True):
            texts = context.texts(token.pieces)
            last = len(texts) - 1
            factors = {
                "uniform": [1.0] * len(texts),
                "characters": [float(len(text)) for text in texts],
                "bytes": [float(len(text.encode())) for text in texts],
                "position": [0.5 ** (last - i if end == "input" else i) for i in range(last + 1)],
                "first": [1.0] + [0.0] * last,
                "last": [0.0] * last + [1.0],
            }[weights]
            expected = sum(
                factor / sum(factors) * base[id].double()
                for factor, id in zip(factors, token.pieces, strict=True)
            )
            assert isinstance(expected, Tensor)
            if end == "input" and norm != "none":
                wanted = script_of(token.surface) if norm == "script" else ""
                same = [not wanted or script == wanted for script in scripts]
                expected *= all_norms[torch.tensor(same)].quantile(0.5) / expected.norm()
            torch.testing.assert_close(row.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        {"input_norm": "script2"},
        {"output_weights": "length"},
        {"input_weights": "length"},
        {"tied_weights": ""},
    ],
)
def test_unknown_choices_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be"):
        SubwordMean(**arguments)
