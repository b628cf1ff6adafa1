"""What the ranks of a group tell each other when each holds a part of the rows."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

ELSEWHERE = -1
"""Target of a position whose row lies on another rank."""


class Exchange(Protocol):
    """Reductions over the ranks that share the rows of one matrix.

    Every rank of the group calls the same methods in the same order with tensors of one shape, and
    gets the same values. Both may work in place.
    """

    def maximum(self, values: Tensor) -> Tensor:
        """The largest value of all ranks, element by element."""

    def total(self, values: Tensor) -> Tensor:
        """The sum over all ranks, element by element."""


class Alone:
    """The exchange of a process that holds all rows: everything stays as it is.

    Example:
        >>> import torch
        >>> Alone().total(torch.ones(2)).tolist()
        [1.0, 1.0]
    """

    def maximum(self, values: Tensor) -> Tensor:
        """The values themselves."""
        return values

    def total(self, values: Tensor) -> Tensor:
        """The values themselves."""
        return values
