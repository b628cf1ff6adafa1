"""Old rows of one ordinary matrix, held still over an optimizer step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class HeldRows:
    """Holds all rows of a parameter but the new ones, bit for bit.

    Args:
        parameter: A matrix ``(num_rows, dim)`` or a bias ``(num_rows,)``.
        new_ids: Rows that are free to move; ids below ``num_rows``.
    """

    def __init__(self, parameter: nn.Parameter, new_ids: Sequence[int]) -> None:
        self.parameter = parameter
        self._new_ids = torch.tensor(sorted(set(new_ids)), device=parameter.device)
        is_old = torch.ones(len(parameter), dtype=torch.bool, device=parameter.device)
        is_old[self._new_ids] = False
        self._is_old = is_old.view(-1, *[1] * (parameter.dim() - 1))  # (num_rows, 1) or (num_rows,)
        self._kept: Tensor | None = None

    def zero_gradient(self) -> None:
        """Set the gradient of the held rows to zero, also where it is not finite."""
        if self.parameter.grad is not None:
            self.parameter.grad.masked_fill_(self._is_old, 0.0)

    @torch.no_grad()
    def keep(self) -> None:
        """Note the rows' values, unless an earlier closure of the same step has done so.

        The whole parameter is cloned: an index of the old rows would cost more than the few new
        ones that the clone holds too much.
        """
        if self._kept is None and self.parameter.grad is not None:
            self._kept = self.parameter.clone()

    @torch.no_grad()
    def put_back(self) -> None:
        """Give the held rows the values noted, and leave the new rows where they have moved."""
        if self._kept is None:
            return
        moved = self.parameter[self._new_ids]  # indexing by a tensor copies
        self.parameter.copy_(self._kept)
        self.parameter[self._new_ids] = moved
        self._kept = None

    def drop(self) -> None:
        """Forget the values noted."""
        self._kept = None
