"""Figures of single rows of a matrix, and which of the unused ones look untrained."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

_LEAST_COSINE = 0.5
_SEED = 2405_05417  # any will do; a fixed one makes hashes repeatable


class RowFigures(NamedTuple):
    """Figures of every row of a matrix, ``(num_rows,)`` each, in float32.

    Args:
        mean: Mean of the row's elements.
        std: Their standard deviation (divided by their number).
        norm: Euclidean norm of the row.
        nonzero: Share of elements that are not zero.
        cosine: Cosine to the mean of the unused rows, of which the row itself is not one.
        duplicates: Number of other rows that equal it bit for bit, int64.
    """

    mean: Tensor
    std: Tensor
    norm: Tensor
    nonzero: Tensor
    cosine: Tensor
    duplicates: Tensor


@torch.no_grad()
def row_figures(rows: Tensor, unused: Tensor, block_size: int = 8192) -> RowFigures:
    """Figures of every row, with respect to the rows that are taken for unused.

    Memory beside the matrix: one block of rows in float32 and in int64. Cost: a few passes over the
    matrix.

    Args:
        rows: An embedding or a head, ``(num_rows, dim)``, of any floating-point type.
        unused: Ids of the rows whose mean the cosine is taken to, ``(num_unused,)``. The mean of
            all other unused rows stands in for an unused row itself; a lone one has cosine 0.
        block_size: Rows at a time.

    Raises:
        ValueError: If the matrix is not of that shape, an id is out of range, the block is empty,
            or a row holds nan or infinity; the message names the row.

    Example:
        >>> rows = torch.tensor([[3.0, 4.0], [0.0, 2.0], [0.0, 2.0], [0.0, 0.0]])
        >>> figures = row_figures(rows, torch.tensor([1, 2]))
        >>> figures.norm.tolist(), figures.duplicates.tolist()
        ([5.0, 2.0, 2.0, 0.0], [0, 1, 1, 0])
        >>> [round(cosine, 3) for cosine in figures.cosine.tolist()]
        [0.8, 1.0, 1.0, 0.0]
    """
    _check(rows, unused, block_size)
    parts = [_basic(part, k * block_size) for k, part in enumerate(torch.split(rows, block_size))]
    mean, std, norm, nonzero = (torch.cat(column) for column in zip(*parts, strict=True))
    cosine = _cosines(rows, unused, block_size)
    return RowFigures(mean, std, norm, nonzero, cosine, _duplicates(rows, block_size))


def look_untrained(figures: RowFigures, unused: Tensor, used: Tensor) -> Tensor:
    """Which of the unused rows look as if they had never been trained, ``(num_unused,)``, bool.

    Those that are zero, that equal another row bit for bit, whose norm is less than half the median
    norm of the used rows, or whose cosine to the mean of the other unused rows is above 0.5 and
    nearer to 1 than to the median cosine of the used rows. The first three catch rows that no
    gradient reached, the last one rows that the softmax alone has pushed, all in one direction.

    The two indicators, norm and cosine to the mean of rows that are known to be unused, are those
    of Land & Bartolo, "Fishing for Magikarp" (arXiv 2405.05417). They rank rows; the thresholds are
    ours. They hang on medians, since a part of the used tokens may be untrained itself (bytes and
    pieces of words that no text holds): in a small model one in ten. A row at a random start whose
    norm is that of trained rows is not told from them.

    Args:
        figures: What `row_figures` gave.
        unused: Ids of the unused rows, ``(num_unused,)``.
        used: Ids of the rows that have a token of their own, ``(num_used,)``.

    Raises:
        ValueError: If there is no used row to compare with.
    """
    if not len(used):
        raise ValueError("Expected at least one used row to compare unused ones with, got none.")
    low_norm = figures.norm[used].median() / 2
    high_cosine = ((1 + figures.cosine[used].median()) / 2).clamp(min=_LEAST_COSINE)
    return (
        (figures.norm[unused] < low_norm)
        | (figures.norm[unused] == 0)
        | (figures.duplicates[unused] > 0)
        | (figures.cosine[unused] > high_cosine)
    )


def _check(rows: Tensor, unused: Tensor, block_size: int) -> None:
    if rows.ndim != 2 or not rows.numel() or not rows.is_floating_point():
        raise ValueError(
            "Expected rows (num_rows, dim) of a floating-point type, got "
            f"{tuple(rows.shape)} of {rows.dtype}."
        )
    if len(unused) and not (int(unused.min()) >= 0 and int(unused.max()) < len(rows)):
        raise ValueError(
            f"Expected ids from 0 to {len(rows) - 1}, got {int(unused.min())} to "
            f"{int(unused.max())}."
        )
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1 row, got {block_size}.")


def _basic(part: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    values = part.float()
    norm = values.norm(dim=1)
    if not bool(norm.isfinite().all()):
        row = first + int((~norm.isfinite()).nonzero()[0])
        raise ValueError(f"Row {row} holds nan or infinity: is the file whole?")
    nonzero = (values != 0).float().mean(dim=1)
    return values.mean(dim=1), values.std(dim=1, correction=0), norm, nonzero


def _cosines(rows: Tensor, unused: Tensor, block_size: int) -> Tensor:
    """Cosine of each row to the mean of the unused rows that are not itself."""
    if not len(unused):
        return torch.zeros(len(rows))
    parts = [rows[ids].double().sum(dim=0) for ids in torch.split(unused, block_size)]
    total = torch.stack(parts).sum(dim=0)
    mean = total.float()
    cosines = torch.cat([_to_mean(part.float(), mean) for part in torch.split(rows, block_size)])
    for ids in torch.split(unused, block_size):
        own = rows[ids].double()
        # What rounding leaves of a lone row's sum without itself has no direction.
        others = total - own if len(unused) > 1 else torch.zeros_like(own)
        cosines[ids] = _to_mean(own, others).float()
    return cosines


def _to_mean(values: Tensor, mean: Tensor) -> Tensor:
    """Cosine of rows to one vector or to one each; a zero row has no direction and gives 0."""
    return (F.normalize(values, dim=-1) * F.normalize(mean, dim=-1)).sum(dim=-1)


def _duplicates(rows: Tensor, block_size: int) -> Tensor:
    """Number of other rows with the same bits, by two hashes of 64 bits each."""
    lanes = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    generator = torch.Generator().manual_seed(_SEED)
    weights = torch.randint(-(2**62), 2**62, (2, rows.shape[1]), generator=generator)
    weights = weights.to(rows.device)
    hashes = []
    for part in torch.split(rows, block_size):
        bits = part.contiguous().view(lanes[part.element_size()]).long()
        # Sums wrap around; two rows that differ share both with a chance far below 2 ** -64.
        hashes.append(torch.stack([(bits * weight).sum(dim=1) for weight in weights]))
    first, second = torch.cat(hashes, dim=1)
    classes = [torch.unique(each, return_inverse=True)[1] for each in (first, second)]
    pairs = classes[0] * len(rows) + classes[1]
    _, inverse, counts = torch.unique(pairs, return_inverse=True, return_counts=True)
    duplicates: Tensor = counts[inverse] - 1
    return duplicates
