from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_vocab.functional.slot_rows import look_untrained, row_figures

ROWS = torch.tensor(
    [[3.0, 4.0, 0.0], [0.0, 2.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 1.0]]
)


def ids(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.long)


def test_figures_are_those_counted_by_hand() -> None:
    figures = row_figures(ROWS, ids(1, 4))
    third = 1 / 3
    torch.testing.assert_close(figures.mean, torch.tensor([7, 2, 2, 0, 0]) * third)
    variance = torch.tensor([26 / 9, 8 / 9, 8 / 9, 0, 2 / 3])
    torch.testing.assert_close(figures.std, variance.sqrt())
    torch.testing.assert_close(figures.norm, torch.tensor([5, 2, 2, 0, 2**0.5]))
    torch.testing.assert_close(figures.nonzero, torch.tensor([2, 1, 1, 0, 2]) * third)
    assert figures.duplicates.tolist() == [0, 1, 1, 0, 0]
    # The mean of the unused is along (-1, 2, 1); rows 1 and 4 see only each other, at right angles.
    along = 6**0.5
    torch.testing.assert_close(figures.cosine, torch.tensor([1 / along, 0, 2 / along, 0, 0]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_blocks_and_types_change_nothing(dtype: torch.dtype) -> None:
    rows = torch.randn(50, 8).to(dtype)
    rows[[7, 20, 49]] = rows[3].clone()
    unused = ids(*range(10, 30))
    whole, parts = row_figures(rows, unused), row_figures(rows, unused, block_size=7)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other)
    assert whole.duplicates.nonzero().flatten().tolist() == [3, 7, 20, 49]
    assert whole.duplicates[3] == 3


def test_cosine_is_to_the_other_unused_rows() -> None:
    rows = torch.randn(12, 5)
    unused = ids(2, 5, 9)
    found = row_figures(rows, unused).cosine
    for row in range(12):
        others = [k for k in (2, 5, 9) if k != row]
        expected = torch.cosine_similarity(rows[row], rows[others].mean(dim=0), dim=0)
        torch.testing.assert_close(found[row], expected)


def test_a_lone_unused_row_has_no_cosine() -> None:
    assert row_figures(torch.randn(4, 3), ids(2)).cosine[2] == 0


def test_without_unused_rows_no_cosine_is_known() -> None:
    figures = row_figures(ROWS, ids())
    assert figures.cosine.tolist() == [0] * 5
    assert look_untrained(figures, ids(), ids(0, 1)).tolist() == []


def test_rows_that_differ_in_one_bit_are_no_duplicates() -> None:
    rows = torch.ones(3, 16, dtype=torch.bfloat16)
    rows[1, 5] = rows[1, 5].nextafter(torch.tensor(2.0, dtype=torch.bfloat16))
    assert row_figures(rows, ids(0)).duplicates.tolist() == [1, 0, 1]


def trained_and_unused(unused: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A hundred ordinary rows of norm near 4, then the unused ones."""
    rows = torch.cat([torch.randn(100, 16), unused])
    return rows, ids(*range(100, len(rows))), ids(*range(100))


DIRECTION = torch.nn.functional.normalize(torch.arange(16.0) - 3, dim=0)


@pytest.mark.parametrize(
    "unused",
    [
        torch.zeros(6, 16),
        0.02 * torch.randn(6, 16, generator=torch.Generator().manual_seed(0)),
        6 * DIRECTION + 0.1 * torch.randn(6, 16, generator=torch.Generator().manual_seed(0)),
        torch.randn(1, 16, generator=torch.Generator().manual_seed(0)).repeat(6, 1),
    ],
    ids=["zero", "short", "pushed one way", "copies"],
)
def test_rows_that_no_text_trained_look_untrained(unused: Tensor) -> None:
    rows, slots, used = trained_and_unused(unused)
    assert look_untrained(row_figures(rows, slots), slots, used).all()


def test_rows_like_the_others_do_not_look_untrained() -> None:
    rows, slots, used = trained_and_unused(torch.randn(6, 16))
    assert not look_untrained(row_figures(rows, slots), slots, used).any()


def test_a_trained_slot_among_untrained_ones_is_told_from_them() -> None:
    unused = 6 * DIRECTION + 0.1 * torch.randn(6, 16)
    unused[2] = torch.randn(16)
    rows, slots, used = trained_and_unused(unused)
    verdicts = look_untrained(row_figures(rows, slots), slots, used)
    assert verdicts.tolist() == [True, True, False, True, True, True]


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="Row 3 holds nan or infinity"):
        row_figures(torch.tensor([[1.0], [2.0], [3.0], [torch.inf]]), ids(0), block_size=2)
    with pytest.raises(ValueError, match=r"got \(4,\)"):
        row_figures(torch.ones(4), ids(0))
    with pytest.raises(ValueError, match="floating-point"):
        row_figures(torch.ones(4, 2, dtype=torch.long), ids(0))
    with pytest.raises(ValueError, match="ids from 0 to 3"):
        row_figures(torch.ones(4, 2), ids(4))
    with pytest.raises(ValueError, match="block_size"):
        row_figures(torch.ones(4, 2), ids(0), block_size=0)
    with pytest.raises(ValueError, match="at least one used row"):
        look_untrained(row_figures(ROWS, ids(0)), ids(0), ids())
