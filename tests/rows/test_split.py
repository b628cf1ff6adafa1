from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_vocab.functional.linear_cross_entropy import linear_cross_entropy
from lightning_vocab.rows.split import SplitEmbedding, SplitHead, SplitRows, base_view

# Base of 5 rows; id 1 is a slot, ids 5 and 7 lie behind the base, id 6 is a hole, id 8 pads.
NEW_IDS = [1, 5, 7]
# Where each id's row comes from: (old, 0) … in order of id, by hand.
ORDER = ["o0", "n0", "o2", "o3", "o4", "n1", "p0", "n2", "p1"]


def make_rows(*, bias: bool = False) -> SplitRows:
    old, new, padding = torch.randn(5, 4), torch.randn(3, 4), torch.randn(2, 4)
    return SplitRows(
        nn.Parameter(old),
        new,
        torch.tensor(NEW_IDS),
        padding,
        old_bias=nn.Parameter(torch.randn(5)) if bias else None,
        new_bias=torch.randn(3) if bias else None,
        padding_bias=torch.randn(2) if bias else None,
    )


def make_appended(num_new: int = 2) -> SplitRows:
    ids = torch.arange(5, 5 + num_new)
    return SplitRows(
        nn.Parameter(torch.randn(5, 4)), torch.randn(num_new, 4), ids, torch.empty(0, 4)
    )


def by_hand(rows: SplitRows) -> tuple[Tensor, Tensor | None]:
    part = {"o": rows.old, "n": rows.new, "p": rows.padding}
    matrix = torch.stack([part[name[0]][int(name[1:])] for name in ORDER])
    if rows.old_bias is None or rows.new_bias is None or rows.padding_bias is None:
        return matrix, None
    bias = {"o": rows.old_bias, "n": rows.new_bias, "p": rows.padding_bias}
    return matrix, torch.stack([bias[name[0]][int(name[1:])] for name in ORDER])


@pytest.mark.parametrize("bias", [False, True])
def test_merged_is_one_matrix_in_order_of_id(bias: bool) -> None:
    rows = make_rows(bias=bias)
    matrix, merged_bias = rows.merged()
    expected, expected_bias = by_hand(rows)
    assert torch.equal(matrix, expected)
    assert (merged_bias is None) == (expected_bias is None)
    if merged_bias is not None and expected_bias is not None:
        assert torch.equal(merged_bias, expected_bias)


def test_merged_is_a_copy_without_gradient() -> None:
    rows = make_rows()
    matrix = rows.merged()[0]
    assert not matrix.requires_grad
    matrix.zero_()
    assert rows.old.abs().min() > 0


def test_embedding_looks_every_id_up() -> None:
    rows = make_rows()
    ids = torch.arange(9).view(3, 3)
    assert torch.equal(SplitEmbedding(rows)(ids), by_hand(rows)[0][ids])


@pytest.mark.parametrize("bias", [False, True])
def test_head_scores_every_id_in_order(bias: bool) -> None:
    rows, hidden = make_rows(bias=bias), torch.randn(2, 3, 4)
    matrix, vector = by_hand(rows)
    assert torch.allclose(SplitHead(rows)(hidden), F.linear(hidden, matrix, vector), atol=1e-6)


def test_appended_rows_need_no_reordering() -> None:
    assert make_appended().is_appended
    assert not make_rows().is_appended


@pytest.mark.parametrize("rows", [make_rows(), make_appended()], ids=["slot", "appended"])
@pytest.mark.parametrize("id", [-1, 9])
def test_an_id_without_a_row_is_an_error(rows: SplitRows, id: int) -> None:
    with pytest.raises(IndexError):
        rows.lookup(torch.tensor([id]))


@pytest.mark.parametrize("bias", [False, True])
def test_blocks_give_the_loss_of_the_merged_matrix(bias: bool) -> None:
    rows, hidden = make_rows(bias=bias), torch.randn(9, 4)
    ids = torch.arange(9)
    loss = linear_cross_entropy(hidden, rows.columns(ids), rows.blocks())
    assert torch.allclose(loss, F.cross_entropy(F.linear(hidden, *by_hand(rows)), ids), atol=1e-6)


def test_replaced_old_rows_are_dead_in_their_block() -> None:
    dead = make_rows().blocks()[0].dead
    assert dead is not None
    assert dead.tolist() == [1]
    assert make_appended().blocks()[0].dead is None


def test_columns_leave_ignored_targets_alone() -> None:
    # Column of id 5 in [5 old | 3 new | 2 padding] is 6, of id 8 it is 9.
    assert make_rows().columns(torch.tensor([-100, 1, 2, 5, 8])).tolist() == [-100, 5, 2, 6, 9]
    assert make_appended().columns(torch.tensor([-100, 1, 5])).tolist() == [-100, 1, 5]


def test_base_view_shows_the_old_rows_alone() -> None:
    rows, hidden, ids = make_rows(bias=True), torch.randn(2, 4), torch.arange(5)
    with base_view(rows):
        assert torch.equal(rows.logits(hidden), F.linear(hidden, rows.old, rows.old_bias))
        assert torch.equal(rows.lookup(ids), rows.old)
        assert [(block.weight is rows.old, block.dead) for block in rows.blocks()] == [(True, None)]
        assert rows.columns(ids) is ids
    assert rows.logits(hidden).shape == (2, 9)


def test_base_view_ends_after_an_error_and_inside_another() -> None:
    rows = make_rows()
    with base_view(rows):
        with pytest.raises(KeyError), base_view(rows):
            raise KeyError
        assert rows.shows_base
    assert not rows.shows_base


def test_base_view_of_nothing_is_an_error() -> None:
    with (
        pytest.raises(ValueError, match="found no split rows in Linear"),
        base_view(nn.Linear(2, 2)),
    ):
        pass


def test_the_padding_index_gets_no_gradient_from_the_embedding() -> None:
    embedding = SplitEmbedding(make_rows(), padding_idx=3)
    embedding(torch.tensor([2, 3, 5])).sum().backward()
    grad = embedding.rows.old.grad
    assert grad is not None
    assert grad.abs().sum(dim=1).tolist() == [0, 0, 4, 0, 0]


@pytest.mark.parametrize("scale", [4.0, torch.tensor(4.0)], ids=["number", "buffer"])
def test_the_scale_multiplies_old_and_new_rows(scale: Tensor | float) -> None:
    rows, ids = make_rows(), torch.arange(9)
    assert torch.equal(SplitEmbedding(rows, scale)(ids), by_hand(rows)[0] * 4)
    assert not [name for name in SplitEmbedding(rows, scale).state_dict() if "scale" in name]


def test_the_state_of_other_new_rows_is_refused() -> None:
    other = SplitRows(
        nn.Parameter(torch.randn(5, 4)),
        torch.randn(3, 4),
        torch.tensor([2, 5, 7]),
        torch.randn(2, 4),
    )
    before = other.merged()[0]
    with pytest.raises(RuntimeError, match="belongs to another vocabulary"):
        other.load_state_dict(make_rows().state_dict())
    assert torch.equal(other.merged()[0], before)


def test_the_state_of_the_same_new_rows_is_loaded() -> None:
    rows, other = make_rows(bias=True), make_rows(bias=True)
    other.load_state_dict(rows.state_dict())
    assert torch.equal(other.merged()[0], rows.merged()[0])


@pytest.mark.parametrize(
    ("new", "ids", "padding", "message"),
    [
        (torch.zeros(0, 4), [], torch.zeros(0, 4), "at least one"),
        (torch.zeros(2, 4), [5], torch.zeros(0, 4), "2 rows for 1 ids"),
        (torch.zeros(2, 4), [6, 5], torch.zeros(0, 4), "ascending"),
        (torch.zeros(2, 4), [5, 5], torch.zeros(0, 4), "ascending"),
        (torch.zeros(1, 4), [-1], torch.zeros(0, 4), "not negative"),
        (torch.zeros(1, 4), [6], torch.zeros(0, 4), "Id 6 has no row"),
        (torch.zeros(1, 3), [5], torch.zeros(0, 4), "one width"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    new: Tensor, ids: list[int], padding: Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        SplitRows(nn.Parameter(torch.zeros(5, 4)), new, torch.tensor(ids), padding)


def test_new_rows_are_stored_row_after_row_whatever_they_were_made_of() -> None:
    old = nn.Parameter(torch.zeros(4, 3))
    for new in (torch.ones(1, 3).expand(2, 3), torch.arange(12.0).view(2, 6)[:, ::2]):
        rows = SplitRows(old, new, torch.tensor([4, 5]), torch.zeros(0, 3))
        assert rows.new.is_contiguous()
        assert torch.equal(rows.new, new)


def test_half_a_bias_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected lengths \[5, 1, 0\], got \[5, None, None\]"):
        SplitRows(
            nn.Parameter(torch.zeros(5, 4)),
            torch.zeros(1, 4),
            torch.tensor([5]),
            torch.zeros(0, 4),
            old_bias=nn.Parameter(torch.zeros(5)),
        )
