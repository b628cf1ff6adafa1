"""What the ranks that share the rows of one matrix tell each other."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import Function

from lightning_vocab.functional.exchange import Exchange


class RankExchange:
    """Reductions over the ranks of a process group, in place.

    Every rank of the group calls the same methods in the same order with tensors of one shape and
    gets the same values, bit for bit.

    Args:
        group: The ranks that share the rows of one matrix.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group

    @property
    def size(self) -> int:
        """Number of ranks."""
        return self.group.size()

    def maximum(self, values: Tensor) -> Tensor:
        """The largest value of all ranks, element by element."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def total(self, values: Tensor) -> Tensor:
        """The sum over all ranks, element by element."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def _reduced(self, values: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        values = values.contiguous()
        dist.all_reduce(values, operation, group=self.group)
        return values


def summed(parts: Tensor, exchange: Exchange) -> Tensor:
    """The sum over the ranks of what each of them knows; all ranks go on with the same values.

    Each rank then computes the same gradient of the sum, which is that of its own part as it is.

    Args:
        parts: This rank's part.
        exchange: The ranks.
    """
    total: Tensor = _Summed.apply(parts, exchange)  # type: ignore[no-untyped-call]  # torch's own
    return total


def shared(values: Tensor, exchange: Exchange) -> Tensor:
    """Values that all ranks have and each multiplies with its own rows; their gradient is summed.

    Args:
        values: The same on all ranks.
        exchange: The ranks.
    """
    same: Tensor = _Shared.apply(values, exchange, 1.0)  # type: ignore[no-untyped-call]  # torch's own
    return same


def averaged(values: Tensor, exchange: RankExchange) -> Tensor:
    """Values that all ranks have and use on batches of their own; their gradient is averaged.

    Args:
        values: The same on all ranks.
        exchange: The ranks.
    """
    same: Tensor = _Shared.apply(values, exchange, 1 / exchange.size)  # type: ignore[no-untyped-call]  # torch's own
    return same


class _Summed(Function):
    """Sums in the forward pass, and hands the gradient on."""

    @staticmethod
    def forward(ctx: Any, parts: Tensor, exchange: Exchange) -> Tensor:
        """Sum a copy: the reduction may work in place."""
        return exchange.total(parts.clone())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """The gradient of the sum is the gradient of each part."""
        return grads[0], None


class _Shared(Function):
    """Hands the values on, and sums in the backward pass."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, exchange: Exchange, factor: float) -> Tensor:
        """Keep the exchange for the way back."""
        ctx.exchange, ctx.factor = exchange, factor
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """The gradients that the ranks know, together."""
        total: Tensor = ctx.exchange.total(grads[0].clone())
        return (total if ctx.factor == 1.0 else total.mul_(ctx.factor)), None, None
