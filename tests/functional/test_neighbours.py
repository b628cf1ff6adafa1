from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_vocab.functional import nearest_cosine


def all_cosines(queries: Tensor, keys: Tensor) -> Tensor:
    return F.cosine_similarity(queries.unsqueeze(1), keys.unsqueeze(0), dim=2)


@pytest.mark.parametrize("block_size", [1, 3, 100])
def test_nearest_equals_the_maximum_of_all_cosines(block_size: int) -> None:
    queries = torch.randn(7, 5, dtype=torch.float64)
    keys = torch.randn(11, 5, dtype=torch.float64)
    values, indices = nearest_cosine(queries, keys, block_size)
    expected = all_cosines(queries, keys).max(dim=1)
    torch.testing.assert_close(values, expected.values)
    assert torch.equal(indices, expected.indices)


def test_norms_do_not_matter() -> None:
    keys = torch.tensor([[100.0, 100.0], [0.1, 0.0]])
    values, indices = nearest_cosine(torch.tensor([[2.0, 0.1]]), keys)
    assert indices.tolist() == [1]
    assert values.item() == pytest.approx(2 / (4.01**0.5))


def test_a_zero_row_has_cosine_zero() -> None:
    values, _ = nearest_cosine(torch.zeros(1, 3), torch.randn(4, 3))
    assert values.tolist() == [0.0]


def test_half_precision_is_compared_in_float32() -> None:
    assert nearest_cosine(torch.ones(1, 2).half(), torch.ones(1, 2).half()).values.dtype == (
        torch.float32
    )


@pytest.mark.parametrize("keys", [torch.zeros(0, 3), torch.zeros(2, 4), torch.zeros(3)])
def test_keys_that_do_not_fit_are_refused(keys: Tensor) -> None:
    with pytest.raises(ValueError, match="at least one key"):
        nearest_cosine(torch.zeros(2, 3), keys)


def test_an_empty_block_is_refused() -> None:
    with pytest.raises(ValueError, match="block_size"):
        nearest_cosine(torch.zeros(2, 3), torch.zeros(2, 3), block_size=0)
