"""Whether two spaces find the same things alike: representational similarity analysis."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_DIGITS = 2.0**40
_BLOCK = 1024


class RepresentationSimilarity(NamedTuple):
    """How well the cosines of one space agree with those of another.

    Args:
        pearson: Pearson's r between the cosines of all pairs of rows.
        spearman: Spearman's rho between them: Pearson's r of their ranks.
        num_rows: Number of rows whose pairs were compared.
    """

    pearson: float
    spearman: float
    num_rows: int


@torch.no_grad()
def representation_similarity(
    rows: Tensor, reference: Tensor, *, max_rows: int | None = 4000, seed: int = 0
) -> RepresentationSimilarity:
    """Correlate the cosines between rows with the cosines between what stands for them elsewhere.

    Kriegeskorte, Mur and Bandettini, "Representational similarity analysis", 2008: the upper
    triangles of both matrices of cosines, without the diagonal. 1 where both spaces put the rows
    in the same relations, whatever the widths, rotations and norms are; 0 where they have nothing
    to do with each other.

    Cosines are computed in float64 and rounded to multiples of ``2 ** -40``, so that equal ones
    are ties; ties share the mean of their ranks. A zero row, in either space, has no direction and
    is left out. nan where fewer than three rows are left, all cosines of a space are the same, or a
    value is not finite.

    Cost: ``n * n * (d + e)`` operations and the sorting of ``n * (n - 1) / 2`` cosines of each
    space. Memory: about 60 bytes for each pair of rows (500 MB for 4,000 rows), never ``(n, n)``.

    Args:
        rows: ``(n, d)``.
        reference: ``(n, e)``; row ``i`` stands for row ``i`` of ``rows``.
        max_rows: Of more rows than this, a sample without repetition is compared; None compares
            all.
        seed: Seed of the sample.

    Raises:
        ValueError: If the two are not matrices of equally many rows, or ``max_rows`` is below 3.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [-1.0, 0.0]])
        >>> turned = 3 * rows @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
        >>> found = representation_similarity(rows, turned)
        >>> round(found.pearson, 6), round(found.spearman, 6), found.num_rows
        (1.0, 1.0, 4)
    """
    _check(rows, reference, max_rows)
    has_direction = rows.ne(0).any(dim=1).cpu() & reference.ne(0).any(dim=1).cpu()
    chosen = has_direction.nonzero().squeeze(1)
    if max_rows is not None and len(chosen) > max_rows:
        generator = torch.Generator().manual_seed(seed)
        chosen = chosen[torch.randperm(len(chosen), generator=generator)[:max_rows]]
    nothing = RepresentationSimilarity(torch.nan, torch.nan, len(chosen))
    if len(chosen) < 3:
        return nothing
    one, other = (_pair_cosines(part[chosen.to(part.device)]) for part in (rows, reference))
    if not (one.isfinite().all() and other.isfinite().all()):
        return nothing
    return RepresentationSimilarity(
        _correlation(one, other),
        _correlation(average_ranks(one), average_ranks(other)),
        len(chosen),
    )


@torch.no_grad()
def average_ranks(values: Tensor) -> Tensor:
    """Ranks from 1 in ascending order, ``(n,)`` in float64; equal values share their mean rank.

    Args:
        values: Finite numbers, ``(n,)``.

    Example:
        >>> average_ranks(torch.tensor([5.0, 1.0, 5.0, 7.0])).tolist()
        [2.5, 1.0, 2.5, 4.0]
    """
    ordered, order = values.sort()
    counts: Tensor = torch.unique_consecutive(ordered, return_counts=True)[1]
    ranks = counts.cumsum(0).double() - (counts - 1).double() / 2
    return torch.empty_like(values, dtype=torch.float64).scatter_(
        0, order, ranks.repeat_interleave(counts)
    )


def _pair_cosines(rows: Tensor) -> Tensor:
    """Cosines of all pairs ``i < j`` of rows, ``(n * (n - 1) / 2,)`` in float64 on the CPU."""
    # The largest value first, so that the squares of no row overflow or vanish.
    rows = rows.cpu().double()
    units = torch.nn.functional.normalize(rows / rows.abs().amax(dim=1, keepdim=True), dim=1)
    parts = []
    for first in range(0, len(units), _BLOCK):
        block = units[first : first + _BLOCK] @ units[first:].T
        is_later = torch.ones_like(block, dtype=torch.bool).triu_(1)
        parts.append(block[is_later])
    return torch.cat(parts).mul_(_DIGITS).round_().div_(_DIGITS)


def _correlation(one: Tensor, other: Tensor) -> float:
    """Pearson's r; nan where either is constant."""
    if one.min() == one.max() or other.min() == other.max():
        return torch.nan
    one, other = one - one.mean(), other - other.mean()
    norms = torch.linalg.vector_norm(one) * torch.linalg.vector_norm(other)
    return float((one @ other / norms).clamp(-1, 1))


def _check(rows: Tensor, reference: Tensor, max_rows: int | None) -> None:
    if not (rows.ndim == reference.ndim == 2 and len(rows) == len(reference)):
        raise ValueError(
            "Expected rows (n, d) and a reference (n, e) of equally many rows, got "
            f"{tuple(rows.shape)} and {tuple(reference.shape)}."
        )
    if max_rows is not None and max_rows < 3:
        raise ValueError(f"Three rows are the fewest to compare, got max_rows={max_rows}.")
