"""Cross-entropy of a linear head over blocks of rows, without the (positions, rows) logits.

The logits of all positions are the largest tensor of a training step: 16,384 positions times
152,000 rows are 10 GB in float32, and autograd keeps more than one of them. Here no more than some
of them are there at a time: those of all positions and a block of rows, for rows that do not train,
and those of a chunk of positions, for rows that do. The gradients are computed during the forward
pass, so that logits are dropped before the next are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_vocab.functional._logit_shape import LogitShape
from lightning_vocab.functional._row_part import RowBlock
from lightning_vocab.functional._row_scorer import Positions, RowScorer
from lightning_vocab.functional.exchange import ELSEWHERE, Exchange

__all__ = ["RowBlock", "linear_cross_entropy", "token_nats"]

CHUNK_SIZE = 384
"""Positions scored at a time against rows that train, unless the caller says otherwise: with 512
their logits take a third more memory, and a whole head was 5 to 10 % faster in float32 on a CPU."""


def linear_cross_entropy(
    hidden: Tensor,
    targets: Tensor,
    blocks: Sequence[RowBlock],
    *,
    ignore_index: int = -100,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    reduction: Literal["mean", "sum"] = "mean",
    chunk_size: int = CHUNK_SIZE,
    exchange: Exchange | None = None,
    skip_negligible: bool = False,
) -> Tensor:
    """Cross-entropy in nats between ``targets`` and the softmax over the rows of all blocks.

    Equal to ``F.cross_entropy(logits, targets)`` with
    ``logits = softcap * tanh(logit_scale * (hidden @ weight.T + bias) / softcap)``: the order of
    Gemma 2 (``softcap=final_logit_softcapping``), Cohere (``logit_scale=logit_scale``) and Granite
    (``logit_scale=1 / logits_scaling``) in transformers.

    ``hidden`` and each block's weight and bias get a gradient if they require one. A frozen block
    costs no gradient buffer and no gradient product. The gradients are computed in the forward
    pass, once; a second backward through the same loss is an error.

    Cost: the products of an ordinary head (logits, gradient of ``hidden``, gradient of each block
    that trains). Memory: one buffer of logits ``(chunk_size, rows that train)`` in the dtype of the
    products (on a GPU, or with an exchange, one in float32 too; another with ``softcap``); one
    gradient the size of ``hidden`` and of each block that trains; for rows that do not train,
    whatever their number, 2 ** 21 logits on a CPU (2 ** 23 in half precision) and 2 ** 25
    elsewhere (in half precision, in float32 too; both again with ``softcap``), and five or six
    tensors ``(1,024 positions or so, dim)``. ``skip_negligible`` holds the logits ``(chunk_size,
    all rows)``.

    Precision: products run in the dtype of ``hidden``, under `torch.autocast` in its dtype; rows of
    another dtype are cast (those that do not train block by block, once for each 1,024 positions or
    so). Logits of half precision become float32 before scale, cap and softmax; loss and gradient
    sums are float32 then, and each gradient has its tensor's dtype.

    Args:
        hidden: Last hidden states, ``(..., dim)``.
        targets: For each position its column in the concatenation of the blocks, ``(...)``, int64.
        blocks: The rows of the head.
        ignore_index: Target of positions that do not count; nothing is computed for them.
        softcap: Bound of the logits by tanh, positive; None for none.
        logit_scale: Factor of the logits, applied before the cap.
        reduction: ``mean`` over the positions that count, or ``sum``. Where no position counts,
            both are 0.0 with zero gradients (torch's mean is nan): one rank of many may get a batch
            without a target and must still take part in the step.
        chunk_size: Positions whose logits over rows that train are in memory at a time.
        exchange: Where the rows of one head are shared out among ranks: ``blocks`` are then those
            of this rank, ``hidden`` and the ignored positions are the same on all ranks, and a
            target is a column of this rank's blocks or `ELSEWHERE`. Loss and gradient of ``hidden``
            are the whole ones on every rank.
        skip_negligible: Leave rows out of a chunk's gradient of ``hidden`` whose probabilities, at
            every position, together are below the resolution of the products' dtype (of each rank,
            with an exchange). Loss and gradients of the rows are not touched.

    Returns:
        A scalar in nats.

    Raises:
        ValueError: If shapes or options do not fit, a target is out of range or on a dead column.
    """
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}.")
    shape = _check_options(logit_scale, softcap, chunk_size)
    positions = _check_inputs(hidden, targets, blocks, ignore_index, exchange)
    scorer = RowScorer(
        hidden,
        blocks,
        shape,
        needs_grad=torch.is_grad_enabled(),
        exchange=exchange,
        skips_negligible=skip_negligible,
    )
    leaves = [tensor for block in blocks for tensor in (block.weight, block.bias)]
    total: Tensor = _StreamedSum.apply(  # type: ignore[no-untyped-call]  # torch leaves it untyped
        scorer, positions, chunk_size, hidden, *leaves
    )
    return total / max(len(positions.kept), 1) if reduction == "mean" else total


@torch.no_grad()
def token_nats(
    hidden: Tensor,
    targets: Tensor,
    blocks: Sequence[RowBlock],
    *,
    ignore_index: int = -100,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    chunk_size: int = CHUNK_SIZE,
    exchange: Exchange | None = None,
) -> Tensor:
    """Negative log-likelihood of each target in nats, 0.0 where it is ignored; no gradient.

    Precision and memory are those of `linear_cross_entropy` over rows that do not train, whose
    ``sum`` these nats add up to.

    Args:
        hidden: Last hidden states, ``(..., dim)``.
        targets: For each position its column in the concatenation of the blocks, ``(...)``, int64.
        blocks: The rows of the head.
        ignore_index: Target of positions that do not count; nothing is computed for them.
        softcap: Bound of the logits by tanh, positive; None for none.
        logit_scale: Factor of the logits, applied before the cap.
        chunk_size: Positions, at least, whose nats are computed together; 1,024 or so are in any
            case.
        exchange: As in `linear_cross_entropy`.

    Returns:
        Nats in the shape of ``targets``; float32 where ``hidden`` has half precision.

    Raises:
        ValueError: If shapes or options do not fit, a target is out of range or on a dead column.
    """
    shape = _check_options(logit_scale, softcap, chunk_size)
    positions = _check_inputs(hidden, targets, blocks, ignore_index, exchange)
    scorer = RowScorer(hidden, blocks, shape, needs_grad=False, exchange=exchange)
    return scorer.stream(positions, chunk_size).view(targets.shape)


class _StreamedSum(torch.autograd.Function):
    """Sum of the nats; its gradients are ready when the forward pass ends."""

    @staticmethod
    def forward(
        ctx: Any,
        scorer: RowScorer,
        positions: Positions,
        chunk_size: int,
        *leaves: Tensor | None,
    ) -> Tensor:
        """Score all positions; keep the gradients of the leaves and nothing else."""
        nats = scorer.stream(positions, chunk_size)
        ctx.gradients = scorer.gradients
        ctx.dtypes = [None if leaf is None else leaf.dtype for leaf in leaves]
        return nats.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients of the forward pass, in place: they are as large as the rows."""
        if ctx.gradients is None:
            raise RuntimeError(
                "linear_cross_entropy gives its gradients once; call it again for another backward."
            )
        gradients, ctx.gradients = ctx.gradients, None
        scaled = (
            None if gradient is None else gradient.mul_(grad_output).to(dtype)
            for gradient, dtype in zip(gradients, ctx.dtypes, strict=True)
        )
        return None, None, None, *scaled


def _check_options(scale: float, softcap: float | None, chunk_size: int) -> LogitShape:
    if softcap is not None and not softcap > 0:
        raise ValueError(f"softcap must be positive, or None for no cap; got {softcap}.")
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1 position, got {chunk_size}.")
    return LogitShape(scale, softcap)


def _check_inputs(
    hidden: Tensor,
    targets: Tensor,
    blocks: Sequence[RowBlock],
    ignore_index: int,
    exchange: Exchange | None,
) -> Positions:
    if targets.shape != hidden.shape[:-1] or targets.dtype != torch.int64:
        raise ValueError(
            f"Expected one int64 target for each hidden state {tuple(hidden.shape[:-1])}, got "
            f"{targets.dtype} of shape {tuple(targets.shape)}."
        )
    for index, (weight, bias, _) in enumerate(blocks):
        fits = weight.ndim == 2 and weight.shape[1] == hidden.shape[-1]
        if not fits or (bias is not None and bias.shape != weight.shape[:1]):
            raise ValueError(
                f"Block {index} must be (rows, {hidden.shape[-1]}) with a bias (rows,) or None, "
                f"got {tuple(weight.shape)} and {None if bias is None else tuple(bias.shape)}."
            )
    flat = targets.reshape(-1)
    kept = (flat != ignore_index).nonzero().squeeze(1)
    own = flat[kept]
    if exchange is not None:
        own = own[own != ELSEWHERE]
    _check_targets(own, blocks, ignore_index)
    return Positions(flat, kept)


def _check_targets(targets: Tensor, blocks: Sequence[RowBlock], ignore_index: int) -> None:
    sizes = [len(block.weight) for block in blocks]
    num_columns = sum(sizes)
    wrong = targets[(targets < 0) | (targets >= num_columns)]
    if len(wrong):
        raise ValueError(
            f"Targets must be columns 0 to {num_columns - 1} of the blocks, or {ignore_index} to "
            f"be ignored; got {int(wrong[0])}."
        )
    if all(block.dead is None for block in blocks):
        return
    is_dead = torch.zeros(num_columns, dtype=torch.bool, device=targets.device)
    for block, own in zip(blocks, torch.split(is_dead, sizes), strict=True):
        if block.dead is not None:
            own[block.dead] = True
    wrong = targets[is_dead[targets]]
    if len(wrong):
        raise ValueError(
            f"Target {int(wrong[0])} is a dead column, whose probability is zero: map the token to "
            "the column of the row that replaced it."
        )
