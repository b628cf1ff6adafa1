from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_vocab.initializers import Mean, SubwordMean
from lightning_vocab.initializers.focus import FOCUS
from lightning_vocab.initializers.wechsel import WECHSEL
from tests.initializers.contexts import WORDS, id_of, make_context
from tests.initializers.spaces.given import GivenSpace, drawn_space


def matrices(dtype: torch.dtype = torch.float32, rows: int = 300) -> tuple[Tensor, Tensor]:
    drawn = torch.randn(2, rows, 4, generator=torch.Generator().manual_seed(3))
    return drawn[0].to(dtype), drawn[1].to(dtype)


def projected(scores: list[float]) -> list[float]:
    """Sparsemax by its definition: the tau with sum(max(z - tau, 0)) = 1, found by bisection."""
    low, high = min(scores) - 1, max(scores)
    for _ in range(60):
        middle = (low + high) / 2
        if sum(max(score - middle, 0) for score in scores) > 1:
            low = middle
        else:
            high = middle
    return [max(score - low, 0) for score in scores]


def naive_row(space: GivenSpace, word: str, rows: Tensor, temperature: float) -> Tensor:
    query = space.new[word].double()
    ids = [id for id in space.old if id != 0]
    cosines = [
        float(query @ key / (query.norm() * key.norm()))
        for key in (space.old[id].double() for id in ids)
    ]
    weights = projected([cosine / temperature for cosine in cosines])
    return torch.stack(
        [weight * rows[id].double() for id, weight in zip(ids, weights, strict=True)]
    ).sum(0)


@pytest.mark.parametrize("temperature", [1.0, 0.05])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("tied", [True, False])
def test_rows_are_those_of_the_papers_formula(
    tied: bool, dtype: torch.dtype, temperature: float
) -> None:
    inputs, outputs = matrices(dtype)
    space = drawn_space(WORDS)
    method = FOCUS(space, temperature, fallback=None)
    made = method.rows(make_context(inputs, None if tied else outputs))
    assert (made[1] is None) == tied
    for found, rows in zip(made, (inputs, outputs), strict=True):
        if found is not None:
            expected = torch.stack([naive_row(space, word, rows, temperature) for word in WORDS])
            torch.testing.assert_close(found.double(), expected, atol=2e-5, rtol=1e-4)
    assert method.known == "GivenSpace knows 3 of 3 new tokens and 300 of 300 base tokens."


def test_an_identical_vector_at_a_low_temperature_copies_the_row() -> None:
    inputs, _ = matrices()
    space = GivenSpace(
        {"catdog": torch.eye(3)[0]}, {5: torch.eye(3)[0], 7: torch.eye(3)[1], 9: torch.eye(3)[2]}
    )
    made = FOCUS(space, temperature=0.5).rows(make_context(inputs, words=["catdog"]))[0]
    torch.testing.assert_close(made[0], inputs[5])


def test_orthogonal_vectors_weigh_the_same() -> None:
    inputs, _ = matrices()
    basis = torch.eye(4)
    space = GivenSpace({"catdog": basis[0]}, {5: basis[1], 7: basis[2], 9: basis[3]})
    made = FOCUS(space).rows(make_context(inputs, words=["catdog"]))[0]
    torch.testing.assert_close(made[0], inputs[[5, 7, 9]].mean(0))


def test_a_token_with_the_text_of_a_base_token_copies_its_row() -> None:
    inputs, outputs = matrices(rows=306)
    # Slot 301 is renamed to the text of the base token " the", which the space does not know.
    context = make_context(inputs, outputs, words=["catdog"], slots={301: " the"})
    space = drawn_space(("catdog", " the"))
    made, heads = FOCUS(space, fallback=None).rows(context)
    assert context.expansion.tokens[0].surface == " the"
    assert made[0].equal(inputs[id_of(" the")])
    assert heads is not None
    assert heads[0].equal(outputs[id_of(" the")])
    mixed = FOCUS(space, copy_equal=False, fallback=None).rows(context)[0]
    assert not mixed[0].equal(inputs[id_of(" the")])
    torch.testing.assert_close(mixed[1], made[1])


def test_the_rows_of_a_script_are_mixed_from_that_script_alone() -> None:
    inputs, _ = matrices()
    latin, digit = id_of("a"), id_of("1")
    space = GivenSpace(
        {"cats": torch.tensor([1.0, 0.2]), "42": torch.tensor([1.0, 0.2])},
        {latin: torch.tensor([0.0, 1.0]), digit: torch.tensor([1.0, 0.0])},
    )
    context = make_context(inputs, words=["cats", "42"])
    made = FOCUS(space, 0.1, pool="script").rows(context)[0]
    torch.testing.assert_close(made, inputs[[latin, digit]])
    torch.testing.assert_close(FOCUS(space, 0.1).rows(context)[0], inputs[[digit, digit]])


def test_a_script_without_base_tokens_takes_all_and_says_so() -> None:
    inputs, _ = matrices()
    space = GivenSpace({"ไทย": torch.ones(2)}, {id_of("a"): torch.ones(2)})
    with pytest.warns(UserWarning, match=r"no base token of the scripts 'Thai': 1 new tokens of 1"):
        made = FOCUS(space, pool="script").rows(make_context(inputs, words=["ไทย"]))[0]
    torch.testing.assert_close(made[0], inputs[id_of("a")])


def test_tokens_without_a_vector_go_to_the_fallback_and_are_counted() -> None:
    inputs, outputs = matrices()
    context = make_context(inputs, outputs)
    method = FOCUS(drawn_space(("catdog",)), fallback=Mean(noise=0))
    made = method.rows(context)[0]
    torch.testing.assert_close(made[1:], inputs.mean(0).expand(2, -1))
    assert str(method.coverage) == (
        "FOCUS made 1 of 3 new tokens (33.3%); Mean made the other 2: 'cats', '<|tool|>'."
    )
    with pytest.raises(ValueError, match="nothing to make 2 of 3 new tokens"):
        FOCUS(drawn_space(("catdog",)), fallback=None).rows(context)


def test_any_method_can_be_the_fallback_of_another() -> None:
    inputs, _ = matrices()
    context = make_context(inputs)
    second = WECHSEL(drawn_space(("cats",)), fallback=SubwordMean())
    first = FOCUS(drawn_space(("catdog",)), fallback=second)
    made = first.rows(context)[0]
    whole = WECHSEL(drawn_space(("cats",)), fallback=Mean()).rows(context)[0]
    torch.testing.assert_close(made[1], whole[1])
    torch.testing.assert_close(made[2], SubwordMean().rows(context)[0][2])
    assert str(first.coverage).endswith("WECHSEL made the other 2: 'cats', '<|tool|>'.")
    assert str(second.coverage) == (
        "WECHSEL made 1 of 2 new tokens (50.0%); SubwordMean made the other 1: '<|tool|>'."
    )


def test_no_overlap_at_all_leaves_every_token_to_the_fallback() -> None:
    inputs, outputs = matrices()
    context = make_context(inputs, outputs, output_bias=torch.arange(300.0))
    # The one base token with a vector is a special token, which never takes part.
    space = GivenSpace({word: torch.ones(2) for word in WORDS}, {0: torch.ones(2)})
    method = FOCUS(space, fallback=SubwordMean())
    made, heads = method.rows(context)
    expected = SubwordMean().rows(context)
    assert heads is not None
    assert made.equal(expected[0])
    assert heads.equal(expected[1])  # type: ignore[arg-type]  # the model is untied
    assert method.bias(context).equal(SubwordMean().bias(context))
    assert method.coverage is not None
    assert method.coverage.share == 0


def test_the_bias_is_mixed_like_the_rows() -> None:
    inputs, outputs = matrices()
    space = drawn_space(WORDS)
    context = make_context(inputs, outputs, output_bias=outputs[:, 0])
    method = FOCUS(space)
    heads = method.rows(context)[1]
    assert heads is not None
    torch.testing.assert_close(method.bias(context), heads[:, 0])


def test_the_order_of_the_new_tokens_changes_nothing() -> None:
    inputs, _ = matrices()
    before = inputs.clone()
    space = drawn_space(WORDS)
    first = FOCUS(space, pool="script").rows(make_context(inputs))[0]
    turned = FOCUS(space, pool="script").rows(make_context(inputs, words=WORDS[::-1]))[0]
    torch.testing.assert_close(turned.flip(0), first)
    assert inputs.equal(before)


def test_padded_rows_do_not_take_part() -> None:
    inputs, _ = matrices(rows=310)
    inputs[303:] = torch.nan
    made = FOCUS(drawn_space(WORDS)).rows(make_context(inputs))[0]
    torch.testing.assert_close(made, FOCUS(drawn_space(WORDS)).rows(make_context(inputs[:300]))[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"pool": "some"}, "pool must be all or script: got 'some'"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FOCUS(**arguments)  # type: ignore[arg-type]  # wrong on purpose
