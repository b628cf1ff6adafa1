"""Rows that do not train, scored a block of rows at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_vocab.functional._logit_shape import LogitShape
from lightning_vocab.functional._row_part import RowPart

_CPU_LOGITS = 2**21
"""Products in memory at a time on a CPU: eight megabytes in float32."""

_CPU_HALF_LOGITS = 2**23
"""The same in half precision, whose products get up to a third slower with blocks of fewer rows."""

CPU_PIECE = 2**19
"""Logits of one pass on a CPU, in float32: two megabytes, which stay in the cache between the
softmax's passes. Whole chunks would go to memory and back for each pass, three times as slow."""

_LOGITS = 2**25
"""Products in memory at a time elsewhere, where each block costs the start of a dozen kernels."""

_MOST_ROWS = 2**14
"""Bound of the rows of a block, which are cast together."""

_MOST_POSITIONS = 2**11
"""Bound of the positions that are scored together: more of them would leave blocks of few rows."""


class Share(NamedTuple):
    """What positions have of some rows, before it is known what they have of all others.

    Args:
        peak: The highest logit, ``(positions,)``.
        total: Sum of ``exp(logit - peak)``, ``(positions,)``.
        target_logit: Logit of the target, 0 where it is none of the rows, ``(positions,)``.
        pull: Sum of ``exp(logit - peak)`` times d logit / d state over all rows but the target's,
            ``(positions, dim)``; None where no gradient is wanted.
        target_pull: d target_logit / d state, ``(positions, dim)``.
    """

    peak: Tensor
    total: Tensor
    target_logit: Tensor
    pull: Tensor | None = None
    target_pull: Tensor | None = None

    @classmethod
    def of_nothing(cls, like: Tensor) -> Share:
        """The share of no rows; ``like`` is ``(positions,)``."""
        lowest = torch.full_like(like, torch.finfo(like.dtype).min)  # finite: no nan in differences
        return cls(lowest, torch.zeros_like(like), torch.zeros_like(like))

    @classmethod
    def joined(cls, shares: Sequence[Share]) -> Share:
        """The share of the positions of all ``shares``, in order."""
        if len(shares) == 1:
            return shares[0]
        fields = zip(*shares, strict=True)
        found = (None if each[0] is None else torch.cat(each) for each in fields)
        return cls(*found)  # type: ignore[arg-type]  # the first three are never None

    def at(self, places: slice) -> Share:
        """The share of some of the positions."""
        return Share(*(None if each is None else each[places] for each in self))  # type: ignore[arg-type]  # the first three are never None

    def add_gradient(self, gradient: Tensor, nats: Tensor, peak: Tensor, total: Tensor) -> None:
        """Add d nats / d state of these rows.

        The target's part is ``p - 1``: added on its own it keeps its digits where p is close to 1,
        which the difference of two sums of half precision would not.

        Args:
            gradient: Where to add, ``(positions, dim)``.
            nats: Negative log-likelihood of the targets, ``(positions,)``.
            peak: The highest logit of all rows there are, ``(positions,)``.
            total: Sum of ``exp(logit - peak)`` over all rows there are, ``(positions,)``.
        """
        if self.pull is None or self.target_pull is None:
            return
        gradient.addcmul_(self.pull, ((self.peak - peak).exp_() / total).unsqueeze(1))
        gradient.addcmul_(self.target_pull, torch.expm1(-nats).unsqueeze(1))


class _Buffers(NamedTuple):
    """For all blocks: fresh memory for each would cost as much as a pass over it.

    Args:
        products: Products of a block, which become its weights.
        logits: Logits of one pass in the dtype of the sums; empty if the products have that dtype.
        pull: A block's part of the pull in the dtype of the products, ``(positions * dim,)``; empty
            likewise.
    """

    products: Tensor
    logits: Tensor
    pull: Tensor


class StreamedRows:
    """Scores positions against rows that do not train, never more than a block of them at a time.

    The sums over the rows run along with a running maximum (Milakov & Gimelshein 2018, arXiv
    1805.02867), so each logit is computed once and dropped: the products are those of a whole
    matrix, and no buffer grows with the number of rows. Rows in another dtype than the products'
    are cast block by block, anew for each group of positions.

    Args:
        parts: The rows, at least one.
        shape: Scale and cap of the logits.
        dtype: Dtype of the products.
        sums: Dtype of the softmax and of all sums.
        num_positions: The most positions that are scored at a time.
        needs_pull: Whether the gradient of the states is wanted.
    """

    def __init__(
        self,
        parts: Sequence[RowPart],
        shape: LogitShape,
        *,
        dtype: torch.dtype,
        sums: torch.dtype,
        num_positions: int,
        needs_pull: bool,
    ) -> None:
        self.parts = parts
        self.shape = shape
        self.dtype = dtype
        self.sums = sums
        self.needs_pull = needs_pull
        like = parts[0].weight
        self._num_positions = num_positions = min(num_positions, _MOST_POSITIONS)
        is_cpu = like.device.type == "cpu"
        num_logits = _LOGITS
        if is_cpu:
            num_logits = _CPU_LOGITS if dtype == sums else _CPU_HALF_LOGITS
        num_rows = max(1, min(num_logits // num_positions, _MOST_ROWS))
        self._blocks = [block for part in parts for block in part.split(num_rows)]
        self._num_rows = max(len(block.weight) for block in self._blocks)
        self._at_once = max(1, CPU_PIECE // self._num_rows) if is_cpu else num_positions
        self._at_once = min(self._at_once, num_positions)

    def score(self, states: Tensor, columns: Tensor) -> Share:
        """The share of these rows.

        Args:
            states: Hidden states in the dtype of the products, ``(positions, dim)``.
            columns: Targets, ``(positions,)``.
        """
        groups = zip(
            torch.split(states, self._num_positions),
            torch.split(columns, self._num_positions),
            strict=True,
        )
        buffers = self._buffers(states)
        share = Share.joined([self._score(*group, buffers) for group in groups])
        del buffers  # before the next tensors of that size are made
        if share.pull is None:
            return share
        return share._replace(target_pull=self._target_pull(columns, share.target_logit))

    def _buffers(self, states: Tensor) -> _Buffers:
        num_positions = min(len(states), self._num_positions)
        products = states.new_empty(num_positions * self._num_rows)
        if self.dtype == self.sums:
            return _Buffers(products, products[:0], products[:0])
        at_once = min(num_positions, self._at_once)
        logits = states.new_empty(at_once * self._num_rows, dtype=self.sums)
        pull = states.new_empty(states[:num_positions].numel() * self.needs_pull)
        return _Buffers(products, logits, pull)

    def _score(self, states: Tensor, columns: Tensor, buffers: _Buffers) -> Share:
        """The share of no more positions than the buffers are for."""
        share = Share.of_nothing(torch.empty(len(states), dtype=self.sums, device=states.device))
        pull = states.new_zeros(states.shape, dtype=self.sums) if self.needs_pull else None
        fading = torch.empty_like(share.peak)
        for block in self._blocks:
            rows = block.weight.to(self.dtype)
            products = self._multiply(states, rows, block.bias, buffers.products)
            for first in range(0, len(states), self._at_once):
                piece = slice(first, first + self._at_once)
                pieces = products[piece], columns[piece], share.at(piece)
                fading[piece] = self._soften(block, *pieces, buffers.logits)
            if pull is not None:
                pull.mul_(fading.unsqueeze(1))
                self._add_product(pull, products, rows, share.total, buffers.pull)
        return share._replace(pull=pull)

    def _multiply(
        self, states: Tensor, rows: Tensor, bias: Tensor | None, buffer: Tensor
    ) -> Tensor:
        """Products ``(positions, rows)``, in the buffer."""
        size = len(states), len(rows)
        products = buffer[: size[0] * size[1]].view(size)
        if bias is None:
            return torch.mm(states, rows.T, out=products)
        return torch.addmm(bias.to(self.dtype), states, rows.T, out=products)

    def _soften(
        self, block: RowPart, products: Tensor, columns: Tensor, share: Share, buffer: Tensor
    ) -> Tensor:
        """Add a block's logits to the share, in place; by what factor its sums have faded.

        If a gradient is wanted, the products become ``exp(logit - peak)`` times d logit / d
        product, 0 at the target; in float16 divided by the total so far.
        """
        logits = products
        if self.dtype != self.sums:
            logits = buffer[: products.numel()].view(products.shape).copy_(products)
        slope = self.shape.apply(logits, block.dead, needs_slope=self.needs_pull)
        inside, place = block.locate(columns)
        found = logits.gather(1, place).squeeze(1)
        share.target_logit.copy_(torch.where(inside, found, share.target_logit))
        peak = torch.maximum(share.peak, logits.amax(1))
        fading = (share.peak - peak).exp_()
        share.peak.copy_(peak)
        logits.sub_(peak.unsqueeze(1)).exp_()
        share.total.mul_(fading).add_(logits.sum(1))
        if self.needs_pull:
            others = logits.gather(1, place).masked_fill_(inside.unsqueeze(1), 0.0)
            self.shape.to_products(logits.scatter_(1, place, others), slope)
            if self.dtype == torch.float16:
                logits.div_(share.total.unsqueeze(1))
            if logits is not products:
                products.copy_(logits)
        return fading

    def _add_product(
        self, pull: Tensor, weights: Tensor, rows: Tensor, total: Tensor, buffer: Tensor
    ) -> None:
        """Add ``weights @ rows`` to ``pull``; in half precision through a buffer."""
        if self.dtype == self.sums:
            pull.addmm_(weights, rows)
            return
        found = torch.mm(weights, rows, out=buffer[: pull.numel()].view(pull.shape))
        if self.dtype == torch.float16:  # whose sum of a block's exponentials could be infinite
            pull.addcmul_(found.to(self.sums), total.unsqueeze(1))
        else:
            pull.add_(found)

    def _target_pull(self, columns: Tensor, target_logit: Tensor) -> Tensor:
        """Derivative of the targets' logits by the states, ``(positions, dim)``."""
        found = torch.zeros((), dtype=self.sums, device=columns.device)
        for part in self.parts:
            inside, place = part.locate(columns)
            rows = part.weight[place.squeeze(1)].to(self.dtype).to(self.sums)
            found = torch.where(inside.unsqueeze(1), rows, found)
        slope = self.shape.slope_at(target_logit)
        return found.mul_(slope if isinstance(slope, float) else slope.unsqueeze(1))
