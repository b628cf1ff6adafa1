"""One block of rows while it is scored, and the sums of its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

_GRADIENT_BLOCK = 16_384
"""Rows whose gradient of one chunk is in memory at a time, where it cannot be added in place."""

_CPU_GRADIENT_BLOCK = 2_048
"""The same on a CPU: it stays in the cache, and no time is lost by smaller blocks there."""


class RowBlock(NamedTuple):
    """Some rows of a head; the head's columns are the concatenation of its blocks.

    Args:
        weight: The rows, ``(rows, dim)``. Zero rows are allowed.
        bias: Bias of the rows, ``(rows,)``.
        dead: Columns of this block, counted from its first row, that take no part in the softmax:
            their logit is minus infinity (rows that a new token has replaced), ``(num_dead,)``.
    """

    weight: Tensor
    bias: Tensor | None = None
    dead: Tensor | None = None


@dataclass
class RowPart:
    """One block of rows while it is scored, and the sums of its gradients.

    Args:
        first: Column of the block's first row.
        weight: The rows, ``(rows, dim)``.
        bias: Their bias, ``(rows,)``.
        dead: Columns of the block that take no part.
        weight_grad: Sum of the gradients of the rows; None where they do not train.
        bias_grad: Sum of the gradients of the bias.
    """

    first: int
    weight: Tensor
    bias: Tensor | None
    dead: Tensor | None
    weight_grad: Tensor | None
    bias_grad: Tensor | None

    def locate(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Which columns ``(chunk,)`` lie in this block, and where: ``(chunk, 1)``, clamped."""
        local = columns - self.first
        inside = (local >= 0) & (local < len(self.weight))
        return inside, local.clamp(0, len(self.weight) - 1).unsqueeze(1)

    def to(self, dtype: torch.dtype) -> RowPart:
        """The same with rows and bias in a dtype; the sums of the gradients stay."""
        bias = None if self.bias is None else self.bias.to(dtype)
        return replace(self, weight=self.weight.to(dtype), bias=bias)

    def split(self, num_rows: int) -> list[RowPart]:
        """The same rows in blocks of at most ``num_rows``, without sums of gradients."""
        firsts = range(0, len(self.weight), num_rows)
        dead: list[Tensor | None] = [None for _ in firsts]
        if self.dead is not None:
            ordered, _ = self.dead.sort()
            ends = torch.tensor([first + num_rows for first in firsts], device=ordered.device)
            cuts = torch.searchsorted(ordered, ends[:-1]).cpu()
            groups = torch.tensor_split(ordered, cuts)
            dead = [
                group - first if len(group) else None
                for first, group in zip(firsts, groups, strict=True)
            ]
        weights = torch.split(self.weight, num_rows)
        biases = [None for _ in firsts] if self.bias is None else torch.split(self.bias, num_rows)
        return [
            RowPart(self.first + first, weight, bias, gone, None, None)
            for first, weight, bias, gone in zip(firsts, weights, biases, dead, strict=True)
        ]

    def products(self, states: Tensor) -> Tensor:
        """Logits as the head gives them, before scale and cap: ``(positions, rows)``."""
        products: Tensor = F.linear(states, self.weight, self.bias)
        return products

    def add_gradients(self, error: Tensor, states: Tensor) -> None:
        """Add a chunk's share; error ``(chunk, rows)`` is d nats / d (states @ weight.T)."""
        if self.weight_grad is not None and self.weight_grad.dtype == error.dtype:
            self.weight_grad.addmm_(error.T, states)  # no temporary of the size of the block
        elif self.weight_grad is not None:
            size = _CPU_GRADIENT_BLOCK if error.device.type == "cpu" else _GRADIENT_BLOCK
            for rows, part in zip(
                torch.split(self.weight_grad, size), torch.split(error, size, dim=1), strict=True
            ):
                rows.add_(part.T @ states)
        if self.bias_grad is not None:
            self.bias_grad.add_(error.sum(0, dtype=self.bias_grad.dtype))


def parts_of(
    blocks: Sequence[RowBlock], grads: Sequence[tuple[Tensor | None, Tensor | None]]
) -> list[RowPart]:
    """The blocks of a head, each with its first column and the sums of its gradients.

    Args:
        blocks: The rows.
        grads: Sums of the gradients of each block's rows and of its bias.
    """
    parts, first = [], 0
    for block, sums in zip(blocks, grads, strict=True):
        bias = None if block.bias is None else block.bias.detach()
        parts.append(RowPart(first, block.weight.detach(), bias, block.dead, *sums))
        first += len(block.weight)
    return parts
