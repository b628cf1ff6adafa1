"""Rows that do not train are scored a block at a time, with the numbers of a whole matrix."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from lightning_vocab.functional import RowBlock, linear_cross_entropy, token_nats
from lightning_vocab.functional._row_part import RowPart
from lightning_vocab.functional._streamed_rows import StreamedRows
from tests.conftest import case

DIM = 5
NUM_OLD, NUM_NEW = 13, 3
DEAD = [12, 0, 4, 3, 5]  # not in order; with blocks of three rows one block is dead as a whole


@pytest.fixture(params=[1, 3, 100], ids="{} rows a block".format)
def block_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Rows that are scored at a time."""
    size: int = request.param
    monkeypatch.setattr("lightning_vocab.functional._streamed_rows._MOST_ROWS", size)
    return size


@pytest.fixture(params=[(1, 1, 2), (2, 3, 5), None], ids="pieces, runs, groups {}".format)
def _parts_of_the_positions(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions that are softened, multiplied and scored together: fewer than there are."""
    if request.param is not None:
        piece, run, group = request.param
        module = "lightning_vocab.functional"
        monkeypatch.setattr(f"{module}._streamed_rows.CPU_PIECE", piece * NUM_OLD)
        monkeypatch.setattr(f"{module}._streamed_rows._MOST_POSITIONS", run)
        monkeypatch.setattr(f"{module}._row_scorer._TOGETHER", group)


def make_inputs() -> tuple[Tensor, Tensor, list[RowBlock]]:
    """Hidden states, targets, one block of old rows that are frozen and one of new rows."""
    hidden = torch.randn(19, DIM, dtype=torch.float64, requires_grad=True)
    old, new = (torch.randn(size, DIM, dtype=torch.float64) for size in (NUM_OLD, NUM_NEW))
    biases = [torch.randn(size, dtype=torch.float64) for size in (NUM_OLD, NUM_NEW)]
    targets = torch.randint(NUM_OLD + NUM_NEW, (19,))
    targets[torch.isin(targets, torch.tensor(DEAD))] = 7
    targets[4] = -100
    blocks = [RowBlock(old, biases[0], torch.tensor(DEAD)), RowBlock(new, biases[1])]
    return hidden, targets, blocks


def plain_nats(
    hidden: Tensor, targets: Tensor, blocks: list[RowBlock], scale: float, cap: float | None
) -> Tensor:
    """Nats from all logits at once."""
    logits = torch.cat([F.linear(hidden, each.weight, each.bias) for each in blocks], 1) * scale
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    dead = torch.zeros(logits.shape[1], dtype=torch.bool)
    first = 0
    for block in blocks:
        if block.dead is not None:
            dead[first + block.dead] = True
        first += len(block.weight)
    return F.cross_entropy(logits.masked_fill(dead, -torch.inf), targets, reduction="none")


def assert_equal(ours: Any, expected: Any) -> None:
    torch.testing.assert_close(ours, expected, rtol=0.0, atol=1e-11)


@pytest.mark.usefixtures("_parts_of_the_positions")
@pytest.mark.parametrize("chunk_size", [2, 500])
@pytest.mark.parametrize("trains", [True, False], ids=["new rows train", "no row trains"])
@pytest.mark.parametrize(
    ("scale", "cap"), [(1.0, None), (0.3, None), (1.0, 1.5), (3.0, 1.5)], ids=str
)
def test_loss_and_gradients_beside_frozen_rows_equal_those_of_all_logits(
    block_size: int, chunk_size: int, trains: bool, scale: float, cap: float | None
) -> None:
    hidden, targets, blocks = make_inputs()
    leaves = [hidden]
    if trains:
        blocks[1].weight.requires_grad_()
        leaves.append(blocks[1].weight)
    options: dict[str, Any] = {"logit_scale": scale, "softcap": cap, "chunk_size": chunk_size}
    ours = linear_cross_entropy(hidden, targets, blocks, reduction="sum", **options)
    plain = plain_nats(hidden, targets, blocks, scale, cap).sum()
    assert_equal(ours, plain)
    assert_equal(torch.autograd.grad(ours, leaves), torch.autograd.grad(plain, leaves))
    nats = token_nats(hidden, targets, blocks, **options)
    assert_equal(nats, plain_nats(hidden, targets, blocks, scale, cap).detach())


def test_a_bias_that_trains_over_frozen_rows_gets_its_gradient(block_size: int) -> None:
    hidden, targets, blocks = make_inputs()
    bias = blocks[0].bias
    assert bias is not None
    bias.requires_grad_()
    ours = linear_cross_entropy(hidden, targets, blocks, reduction="sum")
    plain = plain_nats(hidden, targets, blocks, 1.0, None).sum()
    leaves = [hidden, bias]
    assert_equal(torch.autograd.grad(ours, leaves), torch.autograd.grad(plain, leaves))


@pytest.mark.parametrize("order", [1, -1], ids=["rising", "falling"])
def test_logits_that_rise_or_fall_by_a_thousand_a_block_do_not_overflow(
    block_size: int, order: int
) -> None:
    rows = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0][::order]).unsqueeze(1)
    hidden = torch.tensor([[1000.0]], requires_grad=True)
    best = 5 if order == 1 else 0
    loss = linear_cross_entropy(hidden, torch.tensor([2]), [RowBlock(rows)])
    assert loss.item() == 1000.0 * (5.0 - rows[2].item())
    (gradient,) = torch.autograd.grad(loss, [hidden])
    assert gradient.item() == rows[best].item() - rows[2].item()


def test_rows_that_are_all_dead_leave_the_loss_to_the_others(block_size: int) -> None:
    hidden, targets, blocks = make_inputs()
    targets = targets.clamp(min=-100, max=2).masked_fill(targets >= 0, NUM_OLD + 1)
    gone = [blocks[0]._replace(dead=torch.arange(NUM_OLD)), blocks[1]]
    ours = linear_cross_entropy(hidden, targets, gone)
    alone = [blocks[1]]
    plain = linear_cross_entropy(hidden, targets.where(targets < 0, targets - NUM_OLD), alone)
    assert_equal(ours, plain)
    assert_equal(torch.autograd.grad(ours, [hidden]), torch.autograd.grad(plain, [hidden]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_well_predicted_target_keeps_the_digits_of_its_small_gradient(
    block_size: int, dtype: torch.dtype
) -> None:
    # 1 - p is 1e-3 or so: the difference of p and 1 in half precision would be noise.
    rows = torch.randn(NUM_OLD, DIM).to(dtype)
    states = torch.randn(40, DIM).to(dtype)
    targets = torch.full((40,), 3)
    bias = torch.zeros(NUM_OLD)
    bias[3] = 9.0
    found, exact = states.clone().requires_grad_(), states.double().requires_grad_()
    bias = bias.to(dtype)
    ours = linear_cross_entropy(found, targets, [RowBlock(rows, bias)], reduction="sum")
    plain = F.cross_entropy(F.linear(exact, rows.double(), bias.double()), targets, reduction="sum")
    (ours_gradient,), (gradient,) = (
        torch.autograd.grad(ours, [found]),
        torch.autograd.grad(plain, [exact]),
    )
    distance = (ours_gradient.double() - gradient).norm() / gradient.norm()
    assert distance < 0.03


def test_the_sum_of_many_likely_rows_stays_finite_in_float16() -> None:
    # Twenty thousand rows of one probability: exponentials of 1 times 5.0 would sum to infinity.
    hidden = torch.zeros(1, 8, dtype=torch.float16, requires_grad=True)
    old = torch.full((20_000, 8), 5.0, dtype=torch.float16)
    new = torch.zeros(4, 8, dtype=torch.float16, requires_grad=True)
    loss = linear_cross_entropy(hidden, torch.tensor([20_000]), [RowBlock(old), RowBlock(new)])
    (gradient,) = torch.autograd.grad(loss, [hidden])
    torch.testing.assert_close(gradient.float(), torch.full((1, 8), 5.0), rtol=0, atol=0.01)


def test_large_logits_keep_the_digits_of_the_gradient() -> None:
    # Logits near 10,000 have 1e-3 of resolution in float32; their differences have more.
    hidden = torch.randn(64, DIM, requires_grad=True)
    rows = RowBlock(torch.randn(200, DIM), torch.full((200,), 1e4))
    targets = torch.randint(200, (64,))
    products = F.linear(hidden, rows.weight, rows.bias).detach().double()
    (gradient,) = torch.autograd.grad(
        linear_cross_entropy(hidden, targets, [rows], reduction="sum"), [hidden]
    )
    error = products.softmax(1) - F.one_hot(targets, 200)
    exact = error @ rows.weight.double()
    assert (gradient - exact).norm() / exact.norm() < 1e-6


def test_float32_rows_are_rounded_to_the_products_dtype_for_the_targets_too() -> None:
    hidden = torch.randn(9, DIM, requires_grad=True)
    rows, targets = torch.randn(NUM_OLD, DIM), torch.randint(NUM_OLD, (9,))
    gradients: list[Tensor] = []
    for each in (rows, rows.bfloat16()):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = linear_cross_entropy(hidden, targets, [RowBlock(each)])
        gradients += torch.autograd.grad(loss, [hidden])
    assert torch.equal(*gradients)


@pytest.mark.parametrize("autocast", [case(False, quick=False), case(True, quick=True)])
@pytest.mark.parametrize("trains", [False, True], ids=["evaluation", "training"])
def test_no_buffer_grows_with_the_number_of_frozen_rows(
    monkeypatch: pytest.MonkeyPatch, autocast: bool, trains: bool
) -> None:
    for name in ("_CPU_LOGITS", "_CPU_HALF_LOGITS"):
        monkeypatch.setattr(f"lightning_vocab.functional._streamed_rows.{name}", 2**12)
    positions, num_old = 64, 4_000
    old, new = torch.randn(num_old, DIM), torch.randn(NUM_NEW, DIM, requires_grad=trains)
    hidden = torch.randn(positions, DIM, requires_grad=trains)
    targets = torch.randint(num_old, (positions,))
    with (
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast),
        torch.profiler.profile(profile_memory=True) as profile,
    ):
        loss = linear_cross_entropy(hidden, targets, [RowBlock(old), RowBlock(new)])
        if trains:
            torch.autograd.backward(loss)
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert 0 < largest <= 4 * 2**12


def test_buffers_of_streamed_rows_are_gone_when_rows_that_train_are_scored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[weakref.ref[Tensor]] = []
    alive: list[bool] = []
    make, products = StreamedRows._buffers, RowPart.products

    def noted(self: StreamedRows, states: Tensor) -> Any:
        buffers = make(self, states)
        made.extend(weakref.ref(buffer) for buffer in buffers)
        return buffers

    def watched(self: RowPart, states: Tensor) -> Tensor:
        alive.extend(buffer() is not None for buffer in made)
        return products(self, states)

    monkeypatch.setattr(StreamedRows, "_buffers", noted)
    monkeypatch.setattr(RowPart, "products", watched)
    old, new = torch.randn(NUM_OLD, DIM), torch.randn(NUM_NEW, DIM, requires_grad=True)
    hidden = torch.randn(4, DIM, requires_grad=True)
    linear_cross_entropy(hidden, torch.arange(4), [RowBlock(old), RowBlock(new)])
    assert alive == [False] * 3


@given(st.data())
def test_split_rows_are_the_rows_in_order_with_their_dead_ones(data: st.DataObject) -> None:
    num_rows = data.draw(st.integers(1, 20))
    dead = data.draw(st.lists(st.integers(0, num_rows - 1), unique=True))
    weight, bias = torch.arange(2.0 * num_rows).view(-1, 2), torch.arange(float(num_rows))
    part = RowPart(7, weight, bias, torch.tensor(dead, dtype=torch.long), None, None)
    blocks = part.split(data.draw(st.integers(1, 25)))
    assert torch.equal(torch.cat([block.weight for block in blocks]), weight)
    assert torch.equal(torch.cat([each.bias for each in blocks if each.bias is not None]), bias)
    firsts = [block.first for block in blocks]
    assert firsts == [7 + int(block.weight[0, 0]) // 2 for block in blocks]
    gone = [block.first + block.dead for block in blocks if block.dead is not None]
    assert sorted(7 + each for each in dead) == [int(each) for group in gone for each in group]
