"""How the probability divides among blocks of rows, without the (positions, rows) logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_vocab.functional._logit_shape import LogitShape
from lightning_vocab.functional._row_part import RowBlock, RowPart, parts_of
from lightning_vocab.functional._row_scorer import dtype_of_products, dtype_of_sums
from lightning_vocab.functional.linear_cross_entropy import CHUNK_SIZE


class BlockShares(NamedTuple):
    """What each position's softmax gives to each block of rows.

    Args:
        mass: Probability of each block, ``(..., num_blocks)``; a block without rows has 0.
        best: Column with the largest probability, in the concatenation of the blocks, ``(...)``;
            the first of equal ones.
    """

    mass: Tensor
    best: Tensor


@torch.no_grad()
def block_shares(
    hidden: Tensor,
    blocks: Sequence[RowBlock],
    *,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    chunk_size: int = CHUNK_SIZE,
) -> BlockShares:
    """Probability that each block of rows gets at each position, and the best column.

    Precision and cost are those of `token_nats`. Memory: logits ``(chunk_size, rows)`` of a block,
    twice in half precision.

    Args:
        hidden: Last hidden states, ``(..., dim)``.
        blocks: The rows of the head, at least one row in all.
        softcap: Bound of the logits by tanh; None for none.
        logit_scale: Factor of the logits, applied before the cap.
        chunk_size: Positions scored at a time.

    Example:
        >>> blocks = [RowBlock(torch.zeros(3, 2)), RowBlock(torch.zeros(1, 2))]
        >>> block_shares(torch.ones(1, 2), blocks).mass.double().round(decimals=6).tolist()
        [[0.75, 0.25]]
    """
    dtype = dtype_of_products(hidden)
    sums = dtype_of_sums(dtype)
    states = hidden.reshape(-1, hidden.shape[-1])
    shape = LogitShape(logit_scale, softcap)
    parts = [part.to(dtype) for part in parts_of(blocks, [(None, None)] * len(blocks))]
    mass = torch.zeros(len(states), len(blocks), dtype=sums, device=hidden.device)
    best = torch.zeros(len(states), dtype=torch.long, device=hidden.device)
    with torch.autocast(hidden.device.type, enabled=False):
        for first in range(0, len(states), chunk_size):
            chunk = slice(first, first + chunk_size)
            mass[chunk], best[chunk] = _shares(parts, states[chunk].to(dtype), shape, sums)
    given = hidden.shape[:-1]
    return BlockShares(mass.view(*given, len(blocks)), best.view(given))


def _shares(
    parts: Sequence[RowPart], states: Tensor, shape: LogitShape, sums: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Probability of each block ``(chunk, num_blocks)`` and the best column ``(chunk,)``."""
    nothing = states.new_full((len(states),), float("-inf"), dtype=sums)
    masses, tops, columns = [], [], []
    for part in parts:
        if not len(part.weight):
            masses.append(nothing)
            continue
        logits = part.products(states).to(sums)
        shape.apply(logits, part.dead, needs_slope=False)
        top, column = logits.max(1)
        base = top.clamp(min=torch.finfo(sums).min)  # finite, also where all rows are dead
        masses.append(logits.sub_(base.unsqueeze(1)).exp_().sum(1).log() + base)
        tops.append(top)
        columns.append(part.first + column)
    winner = torch.stack(tops).argmax(0, keepdim=True)
    best = torch.stack(columns).gather(0, winner).squeeze(0)
    return torch.stack(masses, dim=1).softmax(1), best
