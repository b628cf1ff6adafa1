from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_vocab.functional import best_cosines, nearest_cosine
from lightning_vocab.functional.neighbours import largest


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


@pytest.mark.parametrize(("width", "k"), [(1, 1), (40, 40), (64, 1), (1000, 7), (1003, 15)])
def test_the_largest_are_those_of_a_full_sort(width: int, k: int) -> None:
    rows = torch.randint(-500, 500, (5, width)).float()  # with ties
    values, columns = largest(rows, k)
    assert torch.equal(values, rows.sort(dim=1, descending=True).values[:, :k])
    assert torch.equal(rows.gather(1, columns), values)
    assert all(len(set(each)) == k for each in columns.tolist())


def test_the_largest_are_found_in_a_single_group_and_behind_the_last_one() -> None:
    rows = torch.zeros(1, 1003)  # 62 groups of every 62nd column, and 11 columns more
    rows[0, [3, 65, 127, 1000, 1002]] = torch.arange(5.0) + 1
    values, columns = largest(rows, 5)
    assert columns.tolist() == [[1002, 1000, 127, 65, 3]]
    assert values.tolist() == [[5, 4, 3, 2, 1]]


@pytest.mark.parametrize("block_elements", [1, 500, 1 << 24])
def test_best_cosines_are_those_of_all_whatever_the_blocks(block_elements: int) -> None:
    queries = torch.randn(7, 5, dtype=torch.float64)
    keys = torch.randn(300, 5, dtype=torch.float64)
    values, indices = best_cosines(queries, keys, 3, block_elements)
    expected = all_cosines(queries, keys).topk(3, dim=1)
    torch.testing.assert_close(values, expected.values)
    assert torch.equal(indices, expected.indices)
