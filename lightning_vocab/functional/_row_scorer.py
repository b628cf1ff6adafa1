"""Scores positions against blocks of rows, a chunk of positions or a block of rows at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_vocab.functional._logit_shape import LogitShape
from lightning_vocab.functional._negligible import RelevantRows
from lightning_vocab.functional._row_part import RowBlock, RowPart, parts_of
from lightning_vocab.functional._streamed_rows import CPU_PIECE, Share, StreamedRows
from lightning_vocab.functional.exchange import Alone, Exchange

_TOGETHER = 1_024
"""Positions, about, that are scored together against rows that do not train: each such group reads
all of them once."""


class Positions(NamedTuple):
    """Targets of all positions, and which of them count.

    Args:
        targets: Column of each position, ``(positions,)``.
        kept: Indices of the positions whose target is not ignored, ``(num_kept,)``.
    """

    targets: Tensor
    kept: Tensor


class RowScorer:
    """Scores every target against all rows and, if asked, adds up the gradients of the nats.

    Rows that train are held against a chunk of positions at a time, since the gradient of a row
    needs the softmax over all rows; the others are streamed (`StreamedRows`).

    Args:
        hidden: Hidden states, ``(..., dim)``.
        blocks: The rows; with an exchange those of this rank.
        shape: Scale and cap of the logits.
        needs_grad: Whether to add up the gradients of whatever requires grad.
        exchange: What the ranks that share the rows tell each other; None where there is one.
        skips_negligible: Whether rows without a notable part in a chunk stay out of the gradient
            of ``hidden``; all rows are held then.
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
        self.sums = dtype_of_sums(self.dtype)
        self.states = hidden.detach().reshape(-1, hidden.shape[-1])
        self.shape = shape
        self.exchange = Alone() if exchange is None else exchange
        self.skips_negligible = skips_negligible and needs_grad
        self.hidden_grad = self._buffer(hidden, needs_grad)
        self._grads = [
            (self._buffer(block.weight, needs_grad), self._buffer(block.bias, needs_grad))
            for block in blocks
        ]
        self.needs_grad = any(gradient is not None for gradient in self.gradients)
        self.held: list[RowPart] = []
        self.streamed: list[RowPart] = []
        for part in parts_of(blocks, self._grads):
            if not len(part.weight):
                continue
            trains = part.weight_grad is not None or part.bias_grad is not None
            if trains or self.skips_negligible:
                self.held.append(part.to(self.dtype))
            else:
                self.streamed.append(part)
        is_whole = exchange is not None or hidden.device.type != "cpu"
        num_held = sum(len(part.weight) for part in self.held)
        self._positions_at_once = None if is_whole else max(1, CPU_PIECE // max(1, num_held))

    @property
    def gradients(self) -> list[Tensor | None]:
        """Gradients of the summed nats: of ``hidden``, then of each block's weight and bias."""
        return [self.hidden_grad, *(gradient for pair in self._grads for gradient in pair)]

    def stream(self, positions: Positions, chunk_size: int) -> Tensor:
        """Nats of every position ``(positions,)``, 0 where ignored; adds up the gradients."""
        nats = torch.zeros(len(self.states), dtype=self.sums, device=self.states.device)
        if len(positions.kept) == 0:
            return nats
        together = chunk_size * -(-_TOGETHER // chunk_size)  # whole chunks
        groups = torch.split(positions.kept, together)
        streamed = self._streamed_rows(len(groups[0]))
        # The dtype of the products is chosen once; autocast would choose again for some of them.
        with torch.autocast(self.states.device.type, enabled=False):
            for group in groups:
                states, columns = self.states[group].to(self.dtype), positions.targets[group]
                if streamed is None:
                    share = Share.of_nothing(torch.empty_like(columns, dtype=self.sums))
                else:
                    share = streamed.score(states, columns)
                for first in range(0, len(group), chunk_size):
                    chunk = slice(first, first + chunk_size)
                    found, gradient = self._score(states[chunk], columns[chunk], share.at(chunk))
                    nats[group[chunk]] = found
                    if gradient is not None and self.hidden_grad is not None:
                        self.hidden_grad.view(len(self.states), -1)[group[chunk]] = gradient
        return nats

    def _streamed_rows(self, num_positions: int) -> StreamedRows | None:
        if not self.streamed:
            return None
        return StreamedRows(
            self.streamed,
            self.shape,
            dtype=self.dtype,
            sums=self.sums,
            num_positions=num_positions,
            needs_pull=self.hidden_grad is not None,
        )

    def _score(self, states: Tensor, columns: Tensor, share: Share) -> tuple[Tensor, Tensor | None]:
        """Nats of one chunk of positions ``(chunk,)`` and the gradient of its states."""
        # One buffer a block: the logits, which become the errors.
        products = [part.products(states) for part in self.held]
        relevant = RelevantRows(self.held, self.dtype) if self.skips_negligible else None
        size = self._positions_at_once or len(states)
        found = []
        for first in range(0, len(states), size):
            piece = slice(first, first + size)
            pieces = [product[piece] for product in products]
            found.append(self._soften(pieces, columns[piece], share.at(piece), relevant))
        nats, peak, total = (torch.cat(each) for each in zip(*found, strict=True))
        if not self.needs_grad:
            return nats, None
        for part, error in zip(self.held, products, strict=True):
            part.add_gradients(error, states)
        if self.hidden_grad is None:
            return nats, None
        gradient = torch.zeros(states.shape, dtype=self.sums, device=states.device)
        share.add_gradient(gradient, nats, peak, total)
        self._add_held(gradient, products, relevant)
        return nats, self.exchange.total(gradient)

    def _soften(
        self,
        products: list[Tensor],
        columns: Tensor,
        share: Share,
        relevant: RelevantRows | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Nats of some positions, their highest logit, and the sum of ``exp(logit - highest)``.

        If gradients are wanted, the products become their errors.
        """
        logits = [product.to(self.sums) for product in products]  # in place in single precision
        slopes = [
            self.shape.apply(each, part.dead, needs_slope=self.needs_grad)
            for part, each in zip(self.held, logits, strict=True)
        ]
        peak = torch.stack([share.peak, *(each.amax(1) for each in logits)]).amax(0)
        peak = self.exchange.maximum(peak)
        total, target_logit = share.total * (share.peak - peak).exp(), share.target_logit
        places = [part.locate(columns) for part in self.held]
        for (inside, place), each in zip(places, logits, strict=True):
            target_logit = torch.where(inside, each.gather(1, place).squeeze(1), target_logit)
            total += each.sub_(peak.unsqueeze(1)).exp_().sum(1)  # in place: no second buffer
        total, target_logit = self.exchange.total(torch.stack([total, target_logit])).unbind()
        nats = total.log() + (peak - target_logit)
        if self.needs_grad:
            for index, (inside, place) in enumerate(places):
                error = logits[index].div_(total.unsqueeze(1))
                error.scatter_add_(1, place, -inside.to(error.dtype).unsqueeze(1))
                if relevant is not None:
                    relevant.see(index, error, nats)
                self.shape.to_products(error, slopes[index])
                if error is not products[index]:
                    products[index].copy_(error)
        return nats, peak, total

    def _add_held(
        self, gradient: Tensor, errors: list[Tensor], relevant: RelevantRows | None
    ) -> None:
        """Add the held rows' part of the gradient of the states."""
        for index, (part, error) in enumerate(zip(self.held, errors, strict=True)):
            rows = part.weight
            if relevant is not None and (kept := relevant.rows(index)) is not None:
                error, rows = error[:, kept], rows[kept]
            gradient += error @ rows

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


def dtype_of_sums(products: torch.dtype) -> torch.dtype:
    """In what dtype logits are softened and summed: half precision would lose small terms.

    Args:
        products: Dtype of the products.
    """
    return torch.promote_types(products, torch.float32)
