"""Which rows of a head have no notable part in the gradient of a chunk of hidden states."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_vocab.functional._row_part import RowPart

_WORTHWHILE = 0.75
"""Largest share of relevant rows at which gathering them is cheaper than the whole product."""


class RelevantRows:
    """The rows of each block that a chunk's gradient of the hidden states needs.

    The error of a position is its probabilities less one at the target. A set of rows is left out
    where, at every position, their probabilities sum to no more than the unit roundoff of the
    dtype times ``1 - p_target``, half of what all entries of the position's error sum to: what a
    rounding of that error may change. To choose it without a (positions, rows) comparison, rows
    are taken in the order of their largest such share over the chunk, as long as these sum to no
    more than the roundoff.

    Skipping what is below the resolution of the gradient is the idea of Cut Cross-Entropy
    (arXiv 2411.09009, section 4.3), which drops each probability below 2 ** -12; many of those
    together can be the whole error of a position that is well predicted, so here the sum counts.

    Args:
        parts: The blocks.
        dtype: Dtype of the products.
    """

    def __init__(self, parts: Sequence[RowPart], dtype: torch.dtype) -> None:
        self._roundoff = torch.finfo(dtype).eps / 2
        self._largest: list[Tensor | None] = [None for _ in parts]
        self._kept: list[Tensor | None] | None = None

    def see(self, index: int, error: Tensor, nats: Tensor) -> None:
        """Note the errors ``(positions, rows)`` of some positions for one block.

        Args:
            index: The block.
            error: Probabilities, less one at the target.
            nats: Nats of the positions, ``(positions,)``.
        """
        missing = -torch.expm1(-nats)  # 1 - p_target
        shares = (error.abs() / missing.unsqueeze(1)).amax(0)
        before = self._largest[index]
        self._largest[index] = shares if before is None else torch.maximum(before, shares)

    def rows(self, index: int) -> Tensor | None:
        """Rows of a block to multiply with, ascending; None for all of them.

        Args:
            index: The block.
        """
        if self._kept is None:
            self._kept = self._choose()
        return self._kept[index]

    def _choose(self) -> list[Tensor | None]:
        largest = [each for each in self._largest if each is not None]
        shares = torch.cat(largest)
        # A position with p_target = 1 has 0 / 0: nothing is known of its rows, so all stay.
        ordered, order = shares.nan_to_num(nan=torch.inf).sort()
        num_left_out = int((ordered.cumsum(0) <= self._roundoff).sum())
        if len(shares) - num_left_out > _WORTHWHILE * len(shares):
            return [None for _ in largest]
        is_kept = torch.ones(len(shares), dtype=torch.bool, device=shares.device)
        is_kept[order[:num_left_out]] = False
        parts = torch.split(is_kept, [len(each) for each in largest])
        return [part.nonzero().squeeze(1) for part in parts]
