from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_vocab.initializers import Mean
from lightning_vocab.initializers.ofa import OFA
from lightning_vocab.initializers.wechsel import WECHSEL
from tests.initializers.contexts import WORDS, id_of, make_context
from tests.initializers.spaces.given import GivenSpace, drawn_space


def matrices(rows: int = 300) -> tuple[Tensor, Tensor]:
    drawn = torch.randn(2, rows, 8, generator=torch.Generator().manual_seed(3))
    return drawn[0], drawn[1]


def naive_row(space: GivenSpace, word: str, rows: Tensor, dim: int, k: int) -> Tensor:
    """Mix the k nearest rows of U, then go back through S V'."""
    left, values, right = np.linalg.svd(rows.double().numpy(), full_matrices=False)
    query = space.new[word].double().numpy()
    keys = np.stack([space.old[id].double().numpy() for id in range(1, 300)])
    cosines = keys @ query / np.linalg.norm(keys, axis=1) / np.linalg.norm(query)
    nearest = np.argsort(-cosines)[:k]
    weights = np.exp(cosines[nearest] / 0.1)
    coordinates = weights / weights.sum() @ left[nearest + 1, :dim]
    return torch.from_numpy(coordinates @ np.diag(values[:dim]) @ right[:dim])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dim", [1, 3, 8])
def test_rows_are_those_of_the_papers_formula(dim: int, tied: bool, dtype: torch.dtype) -> None:
    inputs, outputs = (matrix.to(dtype) for matrix in matrices())
    space = drawn_space(WORDS)
    made = OFA(space, dim, fallback=None).rows(make_context(inputs, None if tied else outputs))
    for found, rows in zip(made, (inputs, outputs), strict=True):
        if found is not None:
            expected = torch.stack([naive_row(space, word, rows, dim, 10) for word in WORDS])
            torch.testing.assert_close(found.double(), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("dim", [None, 8])
def test_without_truncation_the_rows_are_those_of_wechsel(dim: int | None) -> None:
    context = make_context(*matrices())
    space = drawn_space(WORDS)
    made, heads = OFA(space, dim).rows(context)
    expected, expected_heads = WECHSEL(space).rows(context)
    torch.testing.assert_close(made, expected)
    torch.testing.assert_close(heads, expected_heads)


def test_rows_of_low_rank_lose_nothing() -> None:
    rows = matrices()[0][:, :2] @ matrices()[1][:2]
    space = drawn_space(WORDS)
    made = OFA(space, dim=2).rows(make_context(rows))[0]
    torch.testing.assert_close(made, WECHSEL(space).rows(make_context(rows))[0])


def test_rows_of_the_fallback_are_not_cut() -> None:
    inputs, outputs = matrices()
    made, heads = OFA(drawn_space(("catdog",)), dim=1, fallback=Mean(noise=0)).rows(
        make_context(inputs, outputs)
    )
    assert heads is not None
    torch.testing.assert_close(made[1:], inputs.mean(0).expand(2, -1))
    torch.testing.assert_close(heads[1:], outputs.mean(0).expand(2, -1))


def test_the_factors_are_those_of_rows_that_have_a_token() -> None:
    inputs, _ = matrices(rows=310)
    space = drawn_space(WORDS)
    inputs[303:] = 1000.0  # padded rows
    expected = torch.stack([naive_row(space, word, inputs[:300], 3, 10) for word in WORDS])
    made = OFA(space, dim=3).rows(make_context(inputs))[0]
    torch.testing.assert_close(made.double(), expected, atol=2e-5, rtol=1e-4)


def test_a_token_with_the_text_of_a_base_token_copies_its_coordinates() -> None:
    inputs, _ = matrices(rows=306)
    context = make_context(inputs, words=["catdog"], slots={301: " the"})
    made = OFA(drawn_space(("catdog", " the")), dim=8).rows(context)[0]
    torch.testing.assert_close(made[0], inputs[id_of(" the")])


def test_more_singular_values_than_the_rows_are_wide_is_an_error() -> None:
    with pytest.raises(ValueError, match="dim=9 singular values, but the rows are only 8 wide"):
        OFA(drawn_space(WORDS), dim=9).rows(make_context(matrices()[0]))
    with pytest.raises(ValueError, match="at least 1 singular value, got 0"):
        OFA(drawn_space(WORDS), dim=0)
