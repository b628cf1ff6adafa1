"""Scores positions against blocks of rows, one chunk of positions at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


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


class Positions(NamedTuple):
    """Targets of all positions, and which of them count.

    Args:
        targets: Column of each position, ``(positions,)``.
        kept: Indices of the positions whose target is not ignored, ``(num_kept,)``.
    """

    targets: Tensor
    kept: Tensor


class LogitShape(NamedTuple):
    """What a model makes of its logits: ``softcap * tanh(scale * logits / softcap)``.

    Args:
        scale: Factor of the logits, applied before the cap.
        softcap: Bound of the logits by tanh; None for none.
    """

    scale: float = 1.0
    softcap: float | None = None

    def apply(self, logits: Tensor, *, needs_slope: bool) -> Tensor | None:
        """Shape the logits in place; return the cap's derivative if there is a cap and a need."""
        if self.scale != 1.0:
            logits.mul_(self.scale)
        if self.softcap is None:
            return None
        logits.div_(self.softcap).tanh_()
        slope = 1 - logits.square() if needs_slope else None
        logits.mul_(self.softcap)
        return slope


@dataclass
class _Part:
    """One block with its rows in the dtype of the products, and the sums of its gradients."""

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

    def add_gradients(self, error: Tensor, states: Tensor) -> None:
        """Add a chunk's share; error ``(chunk, rows)`` is d nats / d (states @ weight.T)."""
        if self.weight_grad is not None and self.weight_grad.dtype == error.dtype:
            self.weight_grad.addmm_(error.T, states)  # no temporary of the size of the block
        elif self.weight_grad is not None:
            self.weight_grad.add_(error.T @ states)
        if self.bias_grad is not None:
            self.bias_grad.add_(error.sum(0, dtype=self.bias_grad.dtype))


class RowScorer:
    """Scores every target against all rows and, if asked, adds up the gradients of the nats.

    Args:
        hidden: Hidden states, ``(..., dim)``.
        blocks: The rows.
        shape: Scale and cap of the logits.
        needs_grad: Whether to add up the gradients of whatever requires grad.
    """

    def __init__(
        self, hidden: Tensor, blocks: Sequence[RowBlock], shape: LogitShape, *, needs_grad: bool
    ) -> None:
        self.dtype = _dtype_of_products(hidden)
        # Half precision would lose the small terms of long sums.
        self.sums = torch.promote_types(self.dtype, torch.float32)
        self.states = hidden.detach().reshape(-1, hidden.shape[-1])
        self.shape = shape
        self.hidden_grad = self._buffer(hidden, needs_grad)
        self.parts: list[_Part] = []
        first = 0
        for block in blocks:
            part = _Part(
                first=first,
                weight=block.weight.detach().to(self.dtype),
                bias=None if block.bias is None else block.bias.detach().to(self.dtype),
                dead=block.dead,
                weight_grad=self._buffer(block.weight, needs_grad),
                bias_grad=self._buffer(block.bias, needs_grad),
            )
            self.parts.append(part)
            first += len(block.weight)
        self.needs_grad = any(gradient is not None for gradient in self.gradients)

    @property
    def gradients(self) -> list[Tensor | None]:
        """Gradients of the summed nats: of ``hidden``, then of each block's weight and bias."""
        rows = [grad for part in self.parts for grad in (part.weight_grad, part.bias_grad)]
        return [self.hidden_grad, *rows]

    def stream(self, positions: Positions, chunk_size: int) -> Tensor:
        """Nats of every position ``(positions,)``, 0 where ignored; adds up the gradients."""
        nats = torch.zeros(len(self.states), dtype=self.sums, device=self.states.device)
        if len(positions.kept) == 0:
            return nats
        # The dtype of the products is chosen once; autocast would choose again for some of them.
        with torch.autocast(self.states.device.type, enabled=False):
            for chunk in torch.split(positions.kept, chunk_size):
                nats[chunk] = self._score(chunk, positions.targets[chunk])
        return nats

    def shares(self, chunk: Tensor) -> tuple[Tensor, Tensor]:
        """Probability of each block ``(chunk, num_blocks)`` and the best column ``(chunk,)``."""
        states = self.states[chunk].to(self.dtype)
        nothing = states.new_full((len(chunk),), float("-inf"), dtype=self.sums)
        masses, tops, columns = [], [], []
        for part in self.parts:
            if not len(part.weight):
                masses.append(nothing)
                continue
            logits, _ = self._logits(part, states)
            top, column = logits.max(1)
            masses.append(logits.sub_(top.unsqueeze(1)).exp_().sum(1).log() + top)
            tops.append(top)
            columns.append(part.first + column)
        winner = torch.stack(tops).argmax(0, keepdim=True)
        best = torch.stack(columns).gather(0, winner).squeeze(0)
        return torch.stack(masses, dim=1).softmax(1), best

    def _score(self, chunk: Tensor, columns: Tensor) -> Tensor:
        """Nats of one chunk of positions ``(chunk,)``."""
        states = self.states[chunk].to(self.dtype)
        scored = [(part, *self._logits(part, states)) for part in self.parts if len(part.weight)]
        peak = torch.stack([logits.amax(1) for _, logits, _ in scored]).amax(0)
        target_logit = torch.zeros_like(peak)
        for part, logits, _ in scored:
            inside, place = part.locate(columns)
            target_logit = torch.where(inside, logits.gather(1, place).squeeze(1), target_logit)
            logits.sub_(peak.unsqueeze(1)).exp_()  # in place: no second buffer of this size
        total = torch.stack([exponentials.sum(1) for _, exponentials, _ in scored]).sum(0)
        if self.needs_grad:
            errors = [
                (part, self._error(part, exponentials.div_(total.unsqueeze(1)), slope, columns))
                for part, exponentials, slope in scored
            ]
            self._add_gradients(chunk, states, errors)
        return total.log() + (peak - target_logit)

    def _add_gradients(
        self, chunk: Tensor, states: Tensor, errors: list[tuple[_Part, Tensor]]
    ) -> None:
        for part, error in errors:
            part.add_gradients(error, states)
        if self.hidden_grad is not None:
            products = [(error @ part.weight).to(self.sums) for part, error in errors]
            self.hidden_grad.view(len(self.states), -1)[chunk] = torch.stack(products).sum(0)

    def _logits(self, part: _Part, states: Tensor) -> tuple[Tensor, Tensor | None]:
        """Shaped logits of a chunk ``(chunk, rows)`` and the slope of the cap."""
        logits = F.linear(states, part.weight, part.bias).to(self.sums)
        slope = self.shape.apply(logits, needs_slope=self.needs_grad)
        if part.dead is not None:
            logits.index_fill_(1, part.dead, float("-inf"))
        return logits, slope

    def _error(
        self, part: _Part, probabilities: Tensor, slope: Tensor | None, columns: Tensor
    ) -> Tensor:
        """Gradient of the nats with respect to the products ``(chunk, rows)``, in place."""
        inside, place = part.locate(columns)
        hit = -inside.to(probabilities.dtype).unsqueeze(1)
        error = probabilities.scatter_add_(1, place, hit)
        if slope is not None:
            error.mul_(slope)
        if self.shape.scale != 1.0:
            error.mul_(self.shape.scale)
        return error.to(self.dtype)

    def _buffer(self, leaf: Tensor | None, needs_grad: bool) -> Tensor | None:
        """Where the gradient of ``leaf`` is added up; None where nobody asks for it."""
        if leaf is None or not (needs_grad and leaf.requires_grad):
            return None
        return torch.zeros(leaf.shape, dtype=self.sums, device=leaf.device)


def _dtype_of_products(hidden: Tensor) -> torch.dtype:
    device = hidden.device.type
    if torch.is_autocast_enabled(device) and hidden.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return hidden.dtype
