"""How the probability divides among blocks of rows, without the (positions, rows) logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_vocab.functional._row_part import RowBlock
from lightning_vocab.functional._row_scorer import LogitShape, RowScorer
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

    Precision and cost are those of `token_nats`. Memory: one buffer of logits ``(chunk_size, sum of
    rows)``.

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
    scorer = RowScorer(hidden, blocks, LogitShape(logit_scale, softcap), needs_grad=False)
    mass = torch.zeros(len(scorer.states), len(blocks), dtype=scorer.sums, device=hidden.device)
    best = torch.zeros(len(scorer.states), dtype=torch.long, device=hidden.device)
    with torch.autocast(hidden.device.type, enabled=False):
        for chunk in torch.split(torch.arange(len(best), device=hidden.device), chunk_size):
            mass[chunk], best[chunk] = scorer.shares(chunk)
    shape = hidden.shape[:-1]
    return BlockShares(mass.view(*shape, len(blocks)), best.view(shape))
