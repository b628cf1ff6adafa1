from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_vocab.functional import RowBlock, linear_cross_entropy, token_nats

DIM = 6
SIZES = (11, 4, 0, 3)  # one block is empty, as the padding of most models is
NUM_COLUMNS = sum(SIZES)
OPTIONS: dict[str, dict[str, float]] = {
    "plain": {},
    "softcap": {"softcap": 1.5},
    "scale": {"logit_scale": 0.3},
    "softcap and scale": {"softcap": 1.5, "logit_scale": 3.0},
}


def make_inputs(*, bias: bool = True, dead: bool = True) -> tuple[Tensor, Tensor, list[RowBlock]]:
    """Hidden states (3, 7, dim), targets with ignored ones, and four blocks that all train."""
    hidden = torch.randn(3, 7, DIM, dtype=torch.float64, requires_grad=True)
    blocks = [
        RowBlock(
            torch.randn(size, DIM, dtype=torch.float64, requires_grad=True),
            torch.randn(size, dtype=torch.float64, requires_grad=True) if bias else None,
        )
        for size in SIZES
    ]
    targets = torch.randint(NUM_COLUMNS, (3, 7))
    if dead:
        blocks[0] = blocks[0]._replace(dead=torch.tensor([2, 5]))
        blocks[3] = blocks[3]._replace(dead=torch.tensor([0]))
        targets[(targets == 2) | (targets == 5) | (targets == 15)] = 12
    targets[0, 2] = targets[2, 0] = -100
    return hidden, targets, blocks


def plain_logits(
    hidden: Tensor, blocks: list[RowBlock], softcap: float | None = None, logit_scale: float = 1.0
) -> Tensor:
    """All logits at once, in the order of transformers' models: scale, then cap."""
    parts = []
    for weight, bias, dead in blocks:
        logits = F.linear(hidden, weight, bias) * logit_scale
        if softcap is not None:
            logits = torch.tanh(logits / softcap) * softcap
        parts.append(logits if dead is None else logits.index_fill(-1, dead, -torch.inf))
    return torch.cat(parts, dim=-1)


def plain_loss(hidden: Tensor, targets: Tensor, blocks: list[RowBlock], **options: Any) -> Tensor:
    reduction = options.pop("reduction", "mean")
    logits = plain_logits(hidden, blocks, **options).flatten(0, -2)
    return F.cross_entropy(logits, targets.flatten(), reduction=reduction)


def gradients(loss: Tensor, hidden: Tensor, blocks: list[RowBlock]) -> list[Tensor]:
    rows = [leaf for block in blocks for leaf in (block.weight, block.bias) if leaf is not None]
    leaves = [leaf for leaf in (hidden, *rows) if leaf.requires_grad]
    # Not a factor of 1: the gradient that comes in must be applied.
    return list(torch.autograd.grad(loss * 0.7, leaves))


def assert_equal(ours: list[Tensor], expected: list[Tensor], tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(ours, expected, rtol=0.0, atol=tolerance)


@pytest.mark.parametrize("chunk_size", [1, 7, 1000])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_loss_and_all_gradients_equal_plain_cross_entropy(
    chunk_size: int, options: dict[str, Any], reduction: Literal["mean", "sum"]
) -> None:
    hidden, targets, blocks = make_inputs()
    ours = linear_cross_entropy(
        hidden, targets, blocks, chunk_size=chunk_size, reduction=reduction, **options
    )
    plain = plain_loss(hidden, targets, blocks, reduction=reduction, **options)
    assert_equal([ours], [plain])
    assert_equal(gradients(ours, hidden, blocks), gradients(plain, hidden, blocks))


def test_loss_without_bias_and_dead_columns_equals_plain_cross_entropy() -> None:
    hidden, targets, blocks = make_inputs(bias=False, dead=False)
    ours, plain = linear_cross_entropy(hidden, targets, blocks), plain_loss(hidden, targets, blocks)
    assert_equal(gradients(ours, hidden, blocks), gradients(plain, hidden, blocks))


def test_frozen_blocks_get_no_gradient_and_the_others_the_right_one() -> None:
    hidden, targets, blocks = make_inputs()
    blocks[0].weight.requires_grad_(False)
    blocks[0].bias.requires_grad_(False)  # type: ignore[union-attr]  # make_inputs gave it a bias
    ours, plain = linear_cross_entropy(hidden, targets, blocks), plain_loss(hidden, targets, blocks)
    assert_equal(gradients(ours, hidden, blocks), gradients(plain, hidden, blocks))
    ours = linear_cross_entropy(hidden, targets, blocks)
    torch.autograd.backward(ours)
    assert blocks[0].weight.grad is None


def test_rows_train_where_the_hidden_states_do_not() -> None:
    hidden, targets, blocks = make_inputs()
    hidden = hidden.detach()
    ours, plain = linear_cross_entropy(hidden, targets, blocks), plain_loss(hidden, targets, blocks)
    assert_equal(gradients(ours, hidden, blocks), gradients(plain, hidden, blocks))


def test_hidden_states_train_where_no_row_does() -> None:
    hidden, targets, blocks = make_inputs(bias=False)
    blocks = [block._replace(weight=block.weight.detach()) for block in blocks]
    ours, plain = linear_cross_entropy(hidden, targets, blocks), plain_loss(hidden, targets, blocks)
    assert_equal(gradients(ours, hidden, blocks), gradients(plain, hidden, blocks))


def test_transposed_hidden_states_get_their_gradient_in_place() -> None:
    base, targets, blocks = make_inputs()
    ours = linear_cross_entropy(base.transpose(0, 1), targets.T, blocks, chunk_size=4)
    plain = plain_loss(base, targets, blocks)
    assert_equal(gradients(ours, base, blocks), gradients(plain, base, blocks))


@pytest.mark.parametrize("softcap", [None, 1.5])
def test_positions_that_are_softened_in_pieces_give_the_same(
    softcap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_vocab.functional._row_scorer.CPU_PIECE", 3 * NUM_COLUMNS)
    hidden, targets, blocks = make_inputs()
    ours = linear_cross_entropy(hidden, targets, blocks, chunk_size=8, softcap=softcap)
    plain = plain_loss(hidden, targets, blocks, softcap=softcap)
    assert_equal([ours], [plain])
    assert_equal(gradients(ours, hidden, blocks), gradients(plain, hidden, blocks))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("positions", [0, 5])
def test_without_a_target_the_loss_is_zero_with_zero_gradients(
    reduction: Literal["mean", "sum"], positions: int
) -> None:
    _, _, blocks = make_inputs()
    hidden = torch.randn(positions, DIM, dtype=torch.float64, requires_grad=True)
    targets = torch.full((positions,), -100)
    loss = linear_cross_entropy(hidden, targets, blocks, reduction=reduction)
    assert loss == 0.0
    assert all((gradient == 0).all() for gradient in gradients(loss, hidden, blocks))


def test_another_ignore_index_is_honoured() -> None:
    hidden, targets, blocks = make_inputs()
    moved = targets.masked_fill(targets == -100, -1)
    ours = linear_cross_entropy(hidden, moved, blocks, ignore_index=-1)
    assert_equal([ours], [plain_loss(hidden, targets, blocks)])


def test_large_logits_do_not_overflow() -> None:
    hidden = torch.tensor([[1000.0]])
    blocks = [RowBlock(torch.tensor([[1.0], [2.0]])), RowBlock(torch.tensor([[3.0]]))]
    nats = token_nats(hidden, torch.tensor([1]), blocks)
    assert nats.tolist() == [1000.0]  # the softmax is one-hot on the last row, 1000 ahead


def test_token_nats_equal_plain_cross_entropy_at_each_position() -> None:
    hidden, targets, blocks = make_inputs()
    nats = token_nats(hidden, targets, blocks, softcap=1.5, logit_scale=3.0, chunk_size=4)
    logits = plain_logits(hidden, blocks, softcap=1.5, logit_scale=3.0)
    plain = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    assert_equal([nats], [plain.view(3, 7).detach()])
    assert not nats.requires_grad


def test_no_gradient_is_computed_under_no_grad(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a gradient was computed")

    hidden, targets, blocks = make_inputs()
    expected = plain_loss(hidden, targets, blocks).detach()
    module = "lightning_vocab.functional"
    monkeypatch.setattr(f"{module}._row_part.RowPart.add_gradients", refuse)
    monkeypatch.setattr(f"{module}._streamed_rows.StreamedRows._add_product", refuse)
    with torch.no_grad():
        loss = linear_cross_entropy(hidden, targets, blocks)
    assert_equal([loss], [expected])
    assert not loss.requires_grad


def test_no_tensor_has_room_for_the_logits_of_all_positions() -> None:
    chunk_size, positions = 4, 64
    weight = torch.randn(NUM_COLUMNS, DIM, requires_grad=True)
    hidden = torch.randn(positions, DIM, requires_grad=True)
    targets = torch.randint(NUM_COLUMNS, (positions,))
    with torch.profiler.profile(profile_memory=True, record_shapes=True) as profile:
        loss = linear_cross_entropy(hidden, targets, [RowBlock(weight)], chunk_size=chunk_size)
        torch.autograd.backward(loss)
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest <= 4 * max(positions * DIM, chunk_size * NUM_COLUMNS, NUM_COLUMNS * DIM)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_the_float64_values(dtype: torch.dtype) -> None:
    hidden, targets, blocks = make_inputs()
    halves = [RowBlock(b.weight.detach().to(dtype).requires_grad_(), None, b.dead) for b in blocks]
    half_hidden = hidden.detach().to(dtype).requires_grad_()
    loss = linear_cross_entropy(half_hidden, targets, halves, chunk_size=5)
    exact = [RowBlock(b.weight.detach().double().requires_grad_(), None, b.dead) for b in halves]
    exact_hidden = half_hidden.detach().double().requires_grad_()
    plain = plain_loss(exact_hidden, targets, exact)
    assert loss.dtype == torch.float32
    found = gradients(loss, half_hidden, halves)
    assert all(gradient.dtype == dtype for gradient in found)
    expected = gradients(plain, exact_hidden, exact)
    assert_equal([g.double() for g in found], expected, tolerance=0.02)


def test_float32_rows_keep_float32_gradients_beside_bfloat16_hidden_states() -> None:
    hidden = torch.randn(9, DIM, dtype=torch.bfloat16)
    weight = torch.randn(NUM_COLUMNS, DIM, requires_grad=True)
    targets = torch.randint(NUM_COLUMNS, (9,))
    torch.autograd.backward(linear_cross_entropy(hidden, targets, [RowBlock(weight)], chunk_size=2))
    rounded = weight.detach().bfloat16().double().requires_grad_()
    torch.autograd.backward(plain_loss(hidden.double(), targets, [RowBlock(rounded)]))
    assert weight.grad is not None
    assert rounded.grad is not None
    assert_equal([weight.grad.double()], [rounded.grad], tolerance=0.02)


def test_gradients_of_many_chunks_are_added_up_in_float32() -> None:
    # 1,024 equal positions, one a chunk: bfloat16 sums stall at 256 times their first summand.
    hidden = torch.ones(1024, 1, dtype=torch.bfloat16)
    weight = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    targets = torch.zeros(1024, dtype=torch.int64)
    loss = linear_cross_entropy(hidden, targets, [RowBlock(weight)], chunk_size=1, reduction="sum")
    torch.autograd.backward(loss)
    assert weight.grad is not None
    assert weight.grad.flatten().tolist() == [-512.0, 512.0]


def test_autocast_multiplies_in_its_dtype_and_returns_float32() -> None:
    hidden, targets, blocks = make_inputs()
    hidden = hidden.detach().float().requires_grad_()
    blocks = [RowBlock(b.weight.detach().float().requires_grad_(), None, b.dead) for b in blocks]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = linear_cross_entropy(hidden, targets, blocks)
    halves = [block._replace(weight=block.weight.detach().bfloat16()) for block in blocks]
    assert torch.equal(ours, linear_cross_entropy(hidden.detach().bfloat16(), targets, halves))
    plain = plain_loss(hidden, targets, blocks)
    assert all(gradient.dtype == torch.float32 for gradient in gradients(ours, hidden, blocks))
    assert ours.item() == pytest.approx(plain.item(), abs=0.02)


def test_a_second_backward_is_refused() -> None:
    hidden, targets, blocks = make_inputs()
    loss = linear_cross_entropy(hidden, targets, blocks)
    torch.autograd.backward(loss, retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        torch.autograd.backward(loss)


@pytest.mark.parametrize("target", [NUM_COLUMNS, -1, 2, 15])
def test_a_target_out_of_range_or_on_a_dead_column_is_refused(target: int) -> None:
    hidden, targets, blocks = make_inputs()
    targets[1, 1] = target
    with pytest.raises(ValueError, match=f"{target}"):
        linear_cross_entropy(hidden, targets, blocks)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"softcap": 0.0}, "softcap"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"reduction": "none"}, "reduction"),
        ({"targets": torch.zeros(3, dtype=torch.int64)}, "one int64 target"),
        ({"targets": torch.zeros(3, 7)}, "one int64 target"),
        ({"blocks": [RowBlock(torch.zeros(4, DIM + 1))]}, "Block 0"),
        ({"blocks": [RowBlock(torch.zeros(4, DIM), torch.zeros(3))]}, "Block 0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    hidden, targets, blocks = make_inputs()
    arguments: dict[str, Any] = {"hidden": hidden, "targets": targets, "blocks": blocks}
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(**(arguments | change))
