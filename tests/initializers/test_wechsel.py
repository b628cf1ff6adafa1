from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lightning_vocab.initializers import Mean
from lightning_vocab.initializers.wechsel import WECHSEL
from tests.initializers.contexts import WORDS, make_context
from tests.initializers.spaces.given import GivenSpace, drawn_space


def matrices(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    drawn = torch.randn(2, 300, 4, generator=torch.Generator().manual_seed(3))
    return drawn[0].to(dtype), drawn[1].to(dtype)


def naive_row(space: GivenSpace, word: str, rows: Tensor, k: int, temperature: float) -> Tensor:
    query = space.new[word].double()
    cosines = {
        id: float(query @ key.double() / (query.norm() * key.double().norm()))
        for id, key in space.old.items()
        if id != 0
    }
    nearest = sorted(cosines, key=lambda id: -cosines[id])[:k]
    total = sum(math.exp(cosines[id] / temperature) for id in nearest)
    parts = [math.exp(cosines[id] / temperature) / total * rows[id].double() for id in nearest]
    return torch.stack(parts).sum(0)


@pytest.mark.parametrize(("k", "temperature"), [(10, 0.1), (299, 1.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("tied", [True, False])
def test_rows_are_those_of_the_papers_formula(
    tied: bool, dtype: torch.dtype, k: int, temperature: float
) -> None:
    inputs, outputs = matrices(dtype)
    space = drawn_space(WORDS)
    made = WECHSEL(space, k, temperature, None).rows(
        make_context(inputs, None if tied else outputs)
    )
    assert (made[1] is None) == tied
    for found, rows in zip(made, (inputs, outputs), strict=True):
        if found is not None:
            expected = torch.stack([naive_row(space, word, rows, k, temperature) for word in WORDS])
            torch.testing.assert_close(found.double(), expected, atol=2e-5, rtol=1e-4)


def test_the_nearest_alone_is_copied() -> None:
    inputs, _ = matrices()
    space = GivenSpace({"catdog": torch.eye(2)[0]}, {5: torch.eye(2)[0], 7: torch.eye(2)[1]})
    made = WECHSEL(space, k=1).rows(make_context(inputs, words=["catdog"]))[0]
    torch.testing.assert_close(made[0], inputs[5])


def test_orthogonal_vectors_weigh_the_same() -> None:
    inputs, _ = matrices()
    basis = torch.eye(3)
    space = GivenSpace({"catdog": basis[0]}, {5: basis[1], 7: basis[2]})
    made = WECHSEL(space, k=2).rows(make_context(inputs, words=["catdog"]))[0]
    torch.testing.assert_close(made[0], inputs[[5, 7]].mean(0))


def test_k_above_the_known_base_tokens_is_an_error_with_counts() -> None:
    space = GivenSpace({"catdog": torch.ones(2)}, {5: torch.ones(2), 0: torch.ones(2)})
    message = "k=2 base tokens, but GivenSpace knows only 1 of 300: lower k"
    with pytest.raises(ValueError, match=message):
        WECHSEL(space, k=2).rows(make_context(matrices()[0]))


def test_no_overlap_at_all_leaves_every_token_to_the_fallback() -> None:
    method = WECHSEL(GivenSpace({"cats": torch.ones(2)}, {0: torch.ones(2)}), fallback=Mean())
    method.rows(make_context(matrices()[0]))
    assert str(method.coverage).startswith("WECHSEL made 0 of 3 new tokens (0.0%); Mean made")


def test_the_order_of_the_new_tokens_changes_nothing() -> None:
    inputs, _ = matrices()
    before = inputs.clone()
    first = WECHSEL(drawn_space(WORDS)).rows(make_context(inputs))[0]
    turned = WECHSEL(drawn_space(WORDS)).rows(make_context(inputs, words=WORDS[::-1]))[0]
    torch.testing.assert_close(turned.flip(0), first)
    assert inputs.equal(before)


@pytest.mark.parametrize(("k", "temperature"), [(0, 0.1), (10, 0.0)])
def test_bad_arguments_are_refused(k: int, temperature: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        WECHSEL(drawn_space(WORDS), k, temperature)
