from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightning_vocab.functional.sparsemax import sparsemax, sparsemax_cosine


def projected(scores: list[float]) -> list[float]:
    """The definition: the threshold is found by bisection until the weights sum to 1."""
    low, high = min(scores) - 1.0, max(scores)
    for _ in range(200):
        middle = (low + high) / 2
        total = sum(max(score - middle, 0.0) for score in scores)
        low, high = (middle, high) if total > 1 else (low, middle)
    return [max(score - low, 0.0) for score in scores]


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12))
def test_sparsemax_is_the_projection_onto_the_simplex(scores: list[float]) -> None:
    made = sparsemax(torch.tensor(scores, dtype=torch.float64))
    assert made.tolist() == pytest.approx(projected(scores), abs=1e-9)


def dense(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    cosines = torch.nn.functional.cosine_similarity(queries[:, None], keys[None], dim=-1)
    return sparsemax(cosines / temperature)


@pytest.mark.parametrize("temperature", [1.0, 0.05])
@pytest.mark.parametrize(("first_width", "block_elements"), [(1, 1), (3, 60), (64, 1 << 24)])
def test_weights_over_cosines_are_those_of_all_keys_whatever_the_blocks(
    temperature: float, first_width: int, block_elements: int
) -> None:
    generator = torch.Generator().manual_seed(5)
    queries = torch.randn(17, 6, generator=generator, dtype=torch.float64)
    keys = torch.randn(30, 6, generator=generator, dtype=torch.float64)
    # The first query has one near key, the others many: rows end in different rounds.
    queries[0] = 3 * keys[4]
    made = sparsemax_cosine(
        queries, keys, temperature, first_width=first_width, block_elements=block_elements
    )
    matrix = torch.zeros(17, 30, dtype=torch.float64)
    matrix[torch.repeat_interleave(made.counts), made.ids] = made.weights
    torch.testing.assert_close(matrix, dense(queries, keys, temperature))
    assert len(set(made.counts.tolist())) > 1


def test_an_equal_key_takes_all_where_the_others_are_far() -> None:
    keys = torch.eye(4)
    made = sparsemax_cosine(keys[2:3] * 7, keys)
    assert (made.ids.tolist(), made.weights.tolist()) == ([2], [1.0])


def test_equal_keys_share() -> None:
    made = sparsemax_cosine(torch.ones(1, 2), torch.ones(4, 2))
    assert made.weights.tolist() == [0.25] * 4


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_is_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        sparsemax_cosine(torch.ones(1, 2), torch.ones(1, 2), temperature)
