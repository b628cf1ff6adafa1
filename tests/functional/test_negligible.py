from __future__ import annotations

import torch
from torch import Tensor

from lightning_vocab.functional import RowBlock, linear_cross_entropy
from lightning_vocab.functional._negligible import RelevantRows
from lightning_vocab.functional._row_part import RowPart

ROWS, DIM, POSITIONS = 4_000, 16, 24


def peaked(dtype: torch.dtype) -> tuple[Tensor, Tensor, list[RowBlock]]:
    """Logits of which a few tower above the others, as those of a trained model do."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(ROWS, DIM, generator=generator) * 0.02
    weight[:40] += 3 * torch.randn(40, DIM, generator=generator)
    hidden = torch.randn(POSITIONS, DIM, generator=generator) * 3
    targets = torch.randint(40, (POSITIONS,), generator=generator)
    new = torch.randn(5, DIM, generator=generator)
    blocks = [RowBlock(weight.to(dtype)), RowBlock(new.to(dtype).requires_grad_())]
    return hidden.to(dtype).requires_grad_(), targets, blocks


def all_gradients(dtype: torch.dtype, *, skip: bool) -> tuple[Tensor, ...]:
    """The loss, the gradient of the hidden states and that of the new rows."""
    hidden, targets, blocks = peaked(dtype)
    loss = linear_cross_entropy(hidden, targets, blocks, skip_negligible=skip, reduction="sum")
    return loss, *torch.autograd.grad(loss, [hidden, blocks[1].weight])


def test_skipping_keeps_the_loss_and_the_gradient_of_the_new_rows_bit_equal() -> None:
    for whole, skipped in zip(
        all_gradients(torch.bfloat16, skip=False)[::2],
        all_gradients(torch.bfloat16, skip=True)[::2],
        strict=True,
    ):
        assert torch.equal(whole, skipped)


def test_skipping_changes_a_position_by_less_than_a_rounding_of_its_error() -> None:
    hidden, targets, blocks = peaked(torch.bfloat16)
    exact = [block._replace(weight=block.weight.detach().double()) for block in blocks]
    states = hidden.detach().double().requires_grad_()
    loss = linear_cross_entropy(states, targets, exact, reduction="sum")
    (expected,) = torch.autograd.grad(loss, [states])
    found = {s: all_gradients(torch.bfloat16, skip=s)[1].double() for s in (False, True)}
    assert not torch.equal(found[False], found[True])  # something was skipped
    logits = torch.cat([states @ block.weight.T for block in exact], dim=1).detach()
    missing = 1 - logits.softmax(1).gather(1, targets[:, None]).squeeze(1)
    largest_row = max(float(block.weight.norm(dim=1).max()) for block in exact)
    bound = torch.finfo(torch.bfloat16).eps / 2 * missing * largest_row
    # Both sides also round; what skipping adds to that stays within the bound.
    added = (found[True] - expected).norm(dim=1) - (found[False] - expected).norm(dim=1)
    assert bool((added <= bound + 1e-2 * expected.norm(dim=1)).all())


def test_rows_are_left_out_while_their_largest_shares_sum_to_less_than_the_roundoff() -> None:
    part = RowPart(0, torch.empty(8, 1), None, None, None, None)
    roundoff = torch.finfo(torch.bfloat16).eps / 2
    error = torch.tensor([[0.5, -0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    error[0, 2:] = 0.5 * roundoff * torch.tensor([0.4, 0.5, 0.2, 0.0, 0.0, 0.0])
    relevant = RelevantRows([part], torch.bfloat16)
    relevant.see(0, error, torch.tensor([0.5]).log().neg())
    kept = relevant.rows(0)
    assert kept is not None
    assert kept.tolist() == [0, 1, 3]  # 0.2 + 0.4 fit under 1, 0.5 more does not


def test_a_position_without_any_error_keeps_all_rows() -> None:
    part = RowPart(0, torch.empty(8, 1), None, None, None, None)
    relevant = RelevantRows([part], torch.bfloat16)
    relevant.see(0, torch.zeros(1, 8), torch.zeros(1))
    assert relevant.rows(0) is None


def test_in_float64_nothing_notable_is_skipped() -> None:
    whole, skipped = (all_gradients(torch.float64, skip=skip)[1] for skip in (False, True))
    torch.testing.assert_close(skipped, whole, rtol=1e-12, atol=1e-12)
