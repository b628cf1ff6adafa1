"""How many directions a set of rows really uses: singular values and what is read off them.

No (rows, rows) matrix is built when there are more rows than columns. Rows with a value that is not
finite give nan everywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_vocab.functional._gram import gram_energies, rounding

_BLOCK = 2048


class RowNorms(NamedTuple):
    """Euclidean norms of some rows, scalars in float64.

    Args:
        smallest: Smallest norm.
        median: Median norm (midway between the middle two for an even number).
        mean: Mean norm.
        largest: Largest norm.
    """

    smallest: Tensor
    median: Tensor
    mean: Tensor
    largest: Tensor


@torch.no_grad()
def singular_values(rows: Tensor) -> Tensor:
    """Singular values in descending order, not centred, ``(min(rows, dim),)`` in float64.

    They are the roots of the eigenvalues of the Gram matrix of the smaller side: half of its
    products, as it is symmetric, and an eigenvalue problem in float64. An eigenvalue that rounding
    alone can explain (below ``n * eps`` times the largest) is 0, so that rank one is rank one;
    singular values below ``sqrt(n * eps)`` times the largest, 4e-7 for ``n = 896``, are lost. Where
    one is so far above the others (nearly equal rows), they still have a share in the effective
    rank: it is then off by some 0.02 %.

    Rows of float32 or less whose smaller side is large are multiplied in float32, without their
    mean row, which is put back in float64, so that rows that are nearly the same lose nothing. How
    far the products are from the exact ones is measured on a part of them; where that distance
    could move the effective rank by more than 0.005 %, they are made in float64 after all.

    Cost: ``rows * dim * n`` operations, ``n = min(rows, dim)``, and ``4 / 3 * n ** 3`` in float64.
    Memory: two Gram matrices in float64 and a copy of a block of rows.

    Args:
        rows: A matrix with at least one row and one column, ``(rows, dim)``.

    Raises:
        ValueError: If it is not such a matrix.
    """
    _check_rows(rows)
    energies = gram_energies(rows.detach().to(_device(rows)))
    return energies.masked_fill(energies <= rounding(energies), 0.0).sqrt().flip(0)


def effective_rank(values: Tensor) -> Tensor:
    """``exp(entropy(p))`` with ``p = s / sum(s)``: from 1 to the number of singular values.

    Roy and Vetterli, "The effective rank: a measure of effective dimensionality", 2007, eq. 4.
    Rank one (a single row among them) gives 1, a zero matrix 0.

    Args:
        values: Singular values, ``(n,)``.
    """
    total = values.sum()
    if total == 0:
        return torch.zeros_like(total)
    shares = values / total
    entropy: Tensor = torch.special.entr(shares).sum()
    return entropy.exp()


def stable_rank(values: Tensor) -> Tensor:
    """``sum(s ** 2) / s_1 ** 2``: squared Frobenius norm over squared spectral norm.

    Rank one gives 1, a zero matrix 0.

    Args:
        values: Singular values, ``(n,)``.
    """
    largest = values.max()
    if largest == 0:
        return torch.zeros_like(largest)
    return (values / largest).square().sum()


def participation_ratio(values: Tensor) -> Tensor:
    """``sum(s ** 2) ** 2 / sum(s ** 4)``: how many squared singular values carry the energy.

    Rank one gives 1, a zero matrix 0.

    Args:
        values: Singular values, ``(n,)``.
    """
    largest = values.max()
    if largest == 0:
        return torch.zeros_like(largest)
    energies = (values / largest).square()
    return energies.sum().square() / energies.square().sum()


def top1_share(values: Tensor) -> Tensor:
    """``s_1 / sum(s)``: share of the largest singular value in their sum (not in their squares).

    Rank one gives 1, a zero matrix 0.

    Args:
        values: Singular values, ``(n,)``.
    """
    total = values.sum()
    return torch.zeros_like(total) if total == 0 else values.max() / total


@torch.no_grad()
def mean_pairwise_cosine(rows: Tensor) -> Tensor:
    """Mean cosine over all pairs of two different rows, a scalar in float64.

    From the sum ``S`` of the ``m`` unit rows: ``(|S| ** 2 - m) / (m * (m - 1))``, never from the
    ``(m, m)`` cosines. Zero rows have no direction and are left out; nan where fewer than two rows
    remain.

    Args:
        rows: A matrix with at least one row and one column, ``(rows, dim)``.

    Raises:
        ValueError: If it is not such a matrix.
    """
    _check_rows(rows)
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=_device(rows))
    count = total.new_zeros(())
    for block in torch.split(rows, _BLOCK):
        block = _double(block)
        norms = torch.linalg.vector_norm(block, dim=1)
        total += block.T @ (1 / norms).where(norms != 0, 0.0)
        count += (norms != 0).sum()
    if count < 2:
        return total.new_tensor(torch.nan)
    mean = (total.square().sum() - count) / (count * (count - 1))
    return mean.clamp(-1, 1)  # rounding may reach over


@torch.no_grad()
def row_norms(rows: Tensor) -> RowNorms:
    """Smallest, median, mean and largest Euclidean norm of the rows.

    Args:
        rows: A matrix with at least one row and one column, ``(rows, dim)``.

    Raises:
        ValueError: If it is not such a matrix.
    """
    _check_rows(rows)
    blocks = map(_double, torch.split(rows, _BLOCK))
    norms = torch.cat([torch.linalg.vector_norm(block, dim=1) for block in blocks])
    return RowNorms(norms.min(), norms.quantile(0.5), norms.mean(), norms.max())


def _check_rows(rows: Tensor) -> None:
    if rows.ndim != 2 or rows.numel() == 0:
        raise ValueError(
            f"Expected at least one row and one column, (rows, dim), got {tuple(rows.shape)}."
        )


def _device(rows: Tensor) -> torch.device:
    """Where to compute: Apple's GPUs have no float64."""
    return torch.device("cpu") if rows.device.type == "mps" else rows.device


def _double(block: Tensor) -> Tensor:
    return block.detach().to(_device(block)).to(torch.float64)
