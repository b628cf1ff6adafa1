"""Scores positions against blocks of rows, one chunk of positions at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_vocab.functional._negligible import RelevantRows
from lightning_vocab.functional._row_part import RowBlock, RowPart
from lightning_vocab.functional.exchange import Alone, Exchange

_PIECE = 2**19
"""Logits of one pass on a CPU, in float32: two megabytes, which stay in the cache between the
softmax's passes. Whole chunks would go to memory and back for each pass, three times as slow."""


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


class RowScorer:
    """Scores every target against all rows and, if asked, adds up the gradients of the nats.

    Args:
        hidden: Hidden states, ``(..., dim)``.
        blocks: The rows; with an exchange those of this rank.
        shape: Scale and cap of the logits.
        needs_grad: Whether to add up the gradients of whatever requires grad.
        exchange: What the ranks that share the rows tell each other; None where there is one.
        skips_negligible: Whether rows without a notable part in a chunk stay out of the gradient
            of ``hidden``.
    """

    def __init__(
        self,
        hidden: Tensor,
        blocks: Sequence[RowBlock],
        shape: LogitShape,
        *,
        needs_grad: bool,
        exchange: Exchange | None = None,
        skips_negligible: bool = False,
    ) -> None:
        self.dtype = dtype_of_products(hidden)
        # Half precision would lose the small terms of long sums.
        self.sums = torch.promote_types(self.dtype, torch.float32)
        self.states = hidden.detach().reshape(-1, hidden.shape[-1])
        self.shape = shape
        self.exchange = Alone() if exchange is None else exchange
        self.skips_negligible = skips_negligible
        self.hidden_grad = self._buffer(hidden, needs_grad)
        self.parts: list[RowPart] = []
        first = 0
        for block in blocks:
            part = RowPart(
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
        is_whole = exchange is not None or hidden.device.type != "cpu"
        self._positions_at_once = None if is_whole else max(1, _PIECE // max(1, first))

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
            logits = self._products(part, states).to(self.sums)
            self._shape(part, logits)
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
        parts = [part for part in self.parts if len(part.weight)]
        # One buffer a block: the logits, which become the errors.
        products = [self._products(part, states) for part in parts]
        relevant = RelevantRows(parts, self.dtype) if self.skips_negligible else None
        size = self._positions_at_once or len(chunk)
        nats = []
        for first in range(0, len(chunk), size):
            piece = slice(first, first + size)
            pieces = [product[piece] for product in products]
            nats.append(self._soften(parts, pieces, columns[piece], relevant))
        if self.needs_grad:
            self._add_gradients(chunk, states, parts, products, relevant)
        return torch.cat(nats)

    def _soften(
        self,
        parts: list[RowPart],
        products: list[Tensor],
        columns: Tensor,
        relevant: RelevantRows | None,
    ) -> Tensor:
        """Nats of some positions; if gradients are wanted, the products become their errors."""
        logits = [product.to(self.sums) for product in products]  # in place in single precision
        slopes = [self._shape(part, each) for part, each in zip(parts, logits, strict=True)]
        lowest = torch.full((len(columns),), float("-inf"), dtype=self.sums, device=columns.device)
        peak = torch.stack([lowest, *(each.amax(1) for each in logits)]).amax(0)
        peak = self.exchange.maximum(peak)
        total, target_logit = torch.zeros_like(peak), torch.zeros_like(peak)
        places = [part.locate(columns) for part in parts]
        for (inside, place), each in zip(places, logits, strict=True):
            target_logit = torch.where(inside, each.gather(1, place).squeeze(1), target_logit)
            total += each.sub_(peak.unsqueeze(1)).exp_().sum(1)  # in place: no second buffer
        total, target_logit = self.exchange.total(torch.stack([total, target_logit])).unbind()
        nats: Tensor = total.log() + (peak - target_logit)
        if self.needs_grad:
            for index, (inside, place) in enumerate(places):
                error = logits[index].div_(total.unsqueeze(1))
                error.scatter_add_(1, place, -inside.to(error.dtype).unsqueeze(1))
                if relevant is not None:
                    relevant.see(index, error, nats)
                self._to_products(error, slopes[index])
                if error is not products[index]:
                    products[index].copy_(error)
        return nats

    def _add_gradients(
        self,
        chunk: Tensor,
        states: Tensor,
        parts: list[RowPart],
        errors: list[Tensor],
        relevant: RelevantRows | None,
    ) -> None:
        for part, error in zip(parts, errors, strict=True):
            part.add_gradients(error, states)
        if self.hidden_grad is None:
            return
        whole = torch.zeros(states.shape, dtype=self.sums, device=states.device)
        for index, (part, error) in enumerate(zip(parts, errors, strict=True)):
            rows = part.weight
            if relevant is not None and (kept := relevant.rows(index)) is not None:
                error, rows = error[:, kept], rows[kept]
            whole += error @ rows
        self.hidden_grad.view(len(self.states), -1)[chunk] = self.exchange.total(whole)

    def _products(self, part: RowPart, states: Tensor) -> Tensor:
        """Logits of a chunk as the head gives them, ``(chunk, rows)``."""
        products: Tensor = F.linear(states, part.weight, part.bias)
        return products

    def _shape(self, part: RowPart, logits: Tensor) -> Tensor | None:
        """Shape logits in place; the slope of the cap."""
        slope = self.shape.apply(logits, needs_slope=self.needs_grad)
        if part.dead is not None:
            logits.index_fill_(1, part.dead, float("-inf"))
        return slope

    def _to_products(self, error: Tensor, slope: Tensor | None) -> None:
        """Turn d nats / d logit into d nats / d product, in place."""
        if slope is not None:
            error.mul_(slope)
        if self.shape.scale != 1.0:
            error.mul_(self.shape.scale)

    def _buffer(self, leaf: Tensor | None, needs_grad: bool) -> Tensor | None:
        """Where the gradient of ``leaf`` is added up; None where nobody asks for it."""
        if leaf is None or not (needs_grad and leaf.requires_grad):
            return None
        return torch.zeros(leaf.shape, dtype=self.sums, device=leaf.device)


def dtype_of_products(hidden: Tensor) -> torch.dtype:
    """In what dtype hidden states are multiplied with rows: their own, or that of autocast.

    Args:
        hidden: Hidden states.
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device) and hidden.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return hidden.dtype
