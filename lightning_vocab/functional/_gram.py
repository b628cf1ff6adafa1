"""Eigenvalues of the Gram matrix of some rows, in the cheapest arithmetic that is known to do."""

from __future__ import annotations

import torch
from torch import Tensor

SINGLE_FROM = 512
"""Smaller side of a matrix from which on products are made in float32."""

_BLOCK, _COLUMNS, _CHECKED = 2048, 512, 256
_TOLERANCE = 5e-5  # of the effective rank; half of what is promised


def gram_energies(rows: Tensor) -> Tensor:
    """Squared singular values, ascending, with their rounding, ``(min(rows, dim),)`` in float64.

    nan where a value of the rows is not finite.

    Args:
        rows: A matrix ``(rows, dim)``.
    """
    energies = None
    if min(rows.shape) >= SINGLE_FROM and rows.dtype != torch.float64:
        energies = _single_energies(rows)
    if energies is None:
        gram = _double_gram(rows)
        if not gram.diagonal().isfinite().all():
            return torch.full_like(gram[0], torch.nan)
        energies = torch.linalg.eigvalsh(gram, UPLO="U")
    return energies


def rounding(energies: Tensor) -> Tensor:
    """What an eigenvalue may be by the rounding of float64 alone, a scalar.

    Args:
        energies: All eigenvalues, ``(n,)``.
    """
    return energies.max() * len(energies) * torch.finfo(torch.float64).eps


def _tall(rows: Tensor) -> Tensor:
    return rows if rows.shape[0] >= rows.shape[1] else rows.T


def _add_gram(gram: Tensor, block: Tensor) -> None:
    """Add ``block.T @ block`` to the upper triangle of ``gram``, which is in float64."""
    for start in range(0, len(gram), _COLUMNS):
        part = slice(start, start + _COLUMNS)
        gram[part, start:] += block[:, part].T @ block[:, start:]


def _double_gram(rows: Tensor) -> Tensor:
    """The Gram matrix of the smaller side, upper triangle, from products in float64."""
    tall = _tall(rows)
    gram = torch.zeros(tall.shape[1], tall.shape[1], dtype=torch.float64, device=rows.device)
    for block in torch.split(tall, _BLOCK):
        _add_gram(gram, block.double())
    return gram


def _single_gram(rows: Tensor) -> Tensor:
    """The same from products in float32, of the rows less their mean.

    With ``mu`` the mean row and ``Y`` the rest, ``rows = Y + a b.T``, where ``a`` is 1 and ``b`` is
    ``mu`` (the other way round where the rows are wider than high), and
    ``(Y + a b.T).T @ (Y + a b.T) = Y.T Y + h b.T + b h.T`` with ``h = Y.T a + |a| ** 2 / 2 * b``.
    ``Y`` is rounded, each value to its own float32: nothing cancels.
    """
    tall, mean = _tall(rows), rows.mean(dim=0, dtype=torch.float32)
    is_wide = rows.shape[0] < rows.shape[1]
    ones = torch.ones(len(rows), dtype=torch.float64, device=rows.device)
    left, right = (mean.double(), ones) if is_wide else (ones, mean.double())
    gram = torch.zeros(len(right), len(right), dtype=torch.float64, device=rows.device)
    half = 0.5 * left.dot(left) * right
    for first in range(0, len(tall), _BLOCK):
        part = slice(first, first + _BLOCK)
        block = tall[part] - (mean[part, None] if is_wide else mean)
        half += block.double().T @ left[part] if is_wide else block.sum(0, dtype=torch.float64)
        _add_gram(gram, block)
    return gram.addmm_(torch.stack([half, right], dim=1), torch.stack([right, half]))


def _single_energies(rows: Tensor) -> Tensor | None:
    """The same from products in float32, or None where these do not suffice."""
    gram = _single_gram(rows)
    if not gram.diagonal().isfinite().all():
        return None
    distance = _distance(gram, _tall(rows))
    energies: Tensor = torch.linalg.eigvalsh(gram, UPLO="U")
    is_exact = distance <= rounding(energies) or _rank_error(energies, distance) <= _TOLERANCE
    return energies if is_exact else None


def _distance(gram: Tensor, tall: Tensor) -> Tensor:
    """Frobenius norm of the error of a Gram matrix, from a principal part of it, a scalar.

    The part is that of evenly spread columns, its exact products are made in float64.
    """
    width = len(gram)
    num = min(width, _CHECKED)
    chosen = torch.arange(num, device=tall.device) * width // num
    exact = gram.new_zeros(num, num)
    for first in range(0, len(tall), _BLOCK):
        block = tall[first : first + _BLOCK, chosen].double()
        exact.addmm_(block.T, block)
    error = (gram[chosen][:, chosen] - exact).triu().square()
    on = error.diagonal().sum()
    beside = 2 * (error.sum() - on) * (width - 1) / max(1, num - 1)
    return ((on + beside) * width / num).sqrt()


def _rank_error(energies: Tensor, distance: Tensor) -> Tensor:
    """How far the effective rank can be off, relative to it, a scalar.

    By Hoffman and Wielandt the errors of all eigenvalues together have a norm of at most that of
    the matrix's error. The entropy ``H`` moves by ``sum(ds * (log p + H)) / sum(s)`` where singular
    values ``s`` move by ``ds``, which is at most ``dE / s`` and at most ``sqrt(dE)``; the rest are
    the inequalities of Cauchy and, for values that are lost in the error, Hölder.
    """
    is_lost = energies <= 2 * distance
    values = energies.clamp(min=distance.clamp(min=torch.finfo(torch.float64).tiny)).sqrt()
    shares = values / values.sum()
    entropy = torch.special.entr(shares).sum()
    # A lost value may be any smaller one: its share says nothing, so nothing may cancel.
    slopes = torch.where(is_lost, shares.log() - entropy, shares.log() + entropy) / values
    steps: Tensor = distance * slopes.norm() / values.sum()
    return steps * is_lost.sum().clamp(min=1) ** 0.25
