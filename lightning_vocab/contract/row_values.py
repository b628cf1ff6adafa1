"""Values of rows, looked at in blocks: nothing of the size of the matrix is made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_BLOCK = 4096
_FAR = 4.0  # times
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class RowNorms:
    """Euclidean norms of new rows and the range of the old ones.

    Args:
        ids: The new ids.
        norms: Their norms.
        least: Least norm of the old rows with a token, zero rows left out.
        usual: First and last percentile of the old norms.
        greatest: Greatest norm of the old rows.
    """

    ids: Sequence[int]
    norms: Tensor
    least: float
    usual: tuple[float, float]
    greatest: float

    def outside(self) -> list[int]:
        """New ids whose norm is not among the old ones, the farthest from them first."""
        return self._beyond(self.least, self.greatest)

    def far(self) -> list[int]:
        """New ids whose norm is far from what is usual, the farthest first.

        Far is a factor of four: a row slightly outside the old range is a matter of training; one
        at four times the usual norm takes part in every softmax as if the model were sure of it,
        and one at a quarter says nothing.
        """
        low = min(self.least, self.usual[0]) / _FAR
        return self._beyond(low, max(self.greatest, self.usual[1] * _FAR))

    def _beyond(self, low: float, high: float) -> list[int]:
        """New ids whose norm is below ``low`` or above ``high``, by how many times."""
        times = torch.maximum(low / self.norms, self.norms / high)
        order = times.argsort(descending=True, stable=True)
        return [self.ids[place] for place in order[times[order] > 1].tolist()]

    def __str__(self) -> str:
        low, high = self.norms.min().item(), self.norms.max().item()
        return f"norms {low:.3g} to {high:.3g}, old {self.least:.3g} to {self.greatest:.3g}"


def norms_of(rows: Tensor, ids: Sequence[int], old: Sequence[int]) -> RowNorms:
    """Norms of new rows beside the range of the old ones.

    Args:
        rows: The matrix ``(rows, dim)``.
        ids: New ids.
        old: Ids of old tokens.
    """
    before = _norms(rows, old)
    before = before[(before > 0) & before.isfinite()]
    if not len(before):
        before = torch.ones(1)
    ends = torch.tensor([0.01, 0.99], dtype=before.dtype)
    low, high = _quantiles(before, ends)
    return RowNorms(ids, _norms(rows, ids), before.min().item(), (low, high), before.max().item())


def unfinite_ids(values: Tensor) -> list[int]:
    """Ids of rows (or biases) that hold nan or infinity.

    Args:
        values: A matrix ``(rows, dim)`` or a bias ``(rows,)``.
    """
    found: list[int] = []
    for start in range(0, len(values), _BLOCK):
        finite = values[start : start + _BLOCK].isfinite().flatten(1 if values.dim() > 1 else 0)
        whole = finite.all(dim=1) if values.dim() > 1 else finite
        found += [start + place for place in (~whole).nonzero().flatten().tolist()]
    return found


def equal_rows(rows: Tensor, ids: Sequence[int], old: Sequence[int]) -> list[list[int]]:
    """Groups of ids whose rows are equal, bit for bit, and that hold a new id.

    Rows are told apart by a 64-bit sum of their bits with random odd factors; those of one sum are
    then compared. Cost: one pass over the rows, ``O(n log n)`` for the sums, no pairs.

    Args:
        rows: The matrix ``(rows, dim)``.
        ids: New ids.
        old: Ids of old tokens.
    """
    both = torch.tensor([*ids, *old], dtype=torch.long)
    sums = torch.cat(list(_sums(rows, both)))
    order = sums.argsort(stable=True)  # a new id comes before old ones of its sum
    ordered, sums = both[order], sums[order]
    alike = (sums[1:] == sums[:-1]).nonzero().flatten()
    same = torch.zeros(max(0, len(both) - 1), dtype=torch.bool)
    for places in _blocks(alike):
        left, right = (rows[ordered[each]] for each in (places, places + 1))
        same[places] = (left == right).all(dim=1).cpu()
    # A group begins where a row is the same as the next and not as the one before, and ends so.
    steps = F.pad(same.int(), (1, 1)).diff()
    starts, ends = ((steps == step).nonzero().flatten().tolist() for step in (1, -1))
    groups = (ordered[a : b + 1].tolist() for a, b in zip(starts, ends, strict=True))
    new = set(ids)
    return [sorted(group) for group in groups if not new.isdisjoint(group)]


def largest_change(values: Tensor, before: Tensor, ids: Tensor) -> tuple[int, float]:
    """How many rows differ, and the largest difference of one number; nan if one became nan.

    Args:
        values: The matrix or bias now.
        before: The matrix or bias as it was; compared in the dtype of ``values``.
        ids: The rows to compare.
    """
    count, peaks = 0, torch.zeros(1, dtype=torch.float64)
    for block in _blocks(ids):
        now, then = values[block].cpu(), before[block].cpu().to(values.dtype)
        differs = (now != then) & ~(now.isnan() & then.isnan())
        if differs.any():
            count += int((differs.flatten(1).any(dim=1) if now.dim() > 1 else differs).sum())
            change = (now[differs].double() - then[differs].double()).abs()
            peaks = torch.cat([peaks, change.amax().view(1)])
    return count, float(peaks.amax())  # nan where one is nan


def _norms(rows: Tensor, ids: Sequence[int]) -> Tensor:
    blocks = _blocks(torch.tensor(ids, dtype=torch.long))
    return torch.cat([torch.zeros(0), *(rows[b].float().norm(dim=1).cpu() for b in blocks)])


def _blocks(ids: Tensor) -> Iterator[Tensor]:
    return (ids[start : start + _BLOCK] for start in range(0, len(ids), _BLOCK))


def _quantiles(values: Tensor, ends: Tensor) -> tuple[float, float]:
    ordered = values.sort().values  # torch.quantile takes no more than 16 million values
    places = (ends * (len(ordered) - 1)).round().long()
    low, high = ordered[places].tolist()
    return low, high


def _sums(rows: Tensor, ids: Tensor) -> Iterator[Tensor]:
    """A 64-bit sum of the bits of each row, in blocks."""
    generator = torch.Generator().manual_seed(1)
    dim = rows.shape[1]
    factors = torch.randint(2**62, (dim,), generator=generator) * 2 + 1
    for block in _blocks(ids):
        bits = rows[block].cpu().contiguous().view(_BITS[rows.element_size()])
        yield (bits.long() * factors).sum(dim=1)
