"""Mean, covariance and norms of some rows of a matrix, without a float32 copy of the matrix."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_CHUNK_ROWS = 8192  # 128 MiB of float32 at width 4,096; a whole matrix would be gigabytes
_BLOCK_COLUMNS = 256


def mean_row(rows: Tensor, ids: Tensor) -> Tensor:
    """Mean of the rows ``ids`` of ``rows`` ``(num_rows, …)``, in float32 at least."""
    return torch.stack([part.sum(dim=0) for part in _chunks(rows, ids)]).sum(dim=0) / len(ids)


def covariance(rows: Tensor, ids: Tensor) -> Tensor:
    """Covariance ``(dim, dim)`` of the rows ``ids`` (divided by their number), float32 at least."""
    mean = mean_row(rows, ids)
    return gram_matrix(rows, ids, mean.dtype, minus=mean).div_(len(ids))


def gram_matrix(
    rows: Tensor, ids: Tensor, dtype: torch.dtype, *, minus: Tensor | None = None
) -> Tensor:
    """``X.T @ X`` ``(dim, dim)`` of the rows ``ids``, less ``minus`` ``(dim,)`` if it is given.

    Only the blocks on and below the diagonal are computed, which is little more than half.
    """
    dim = rows.shape[1]
    total = torch.zeros(dim, dim, dtype=dtype, device=rows.device)
    shifted = total.new_empty(min(len(ids), _CHUNK_ROWS), dim)
    starts = range(0, dim, _BLOCK_COLUMNS)
    for part in _chunks(rows, ids):
        part = part.to(dtype)
        if minus is not None:
            part = torch.sub(part, minus, out=shifted[: len(part)])
        for start in starts:
            stop = start + _BLOCK_COLUMNS
            total[start:stop, :stop].addmm_(part[:, start:stop].T, part[:, :stop])
    for start in starts:
        stop = start + _BLOCK_COLUMNS
        total[:start, start:stop] = total[start:stop, :start].T
    return total


def standard_deviation(rows: Tensor, ids: Tensor) -> Tensor:
    """Standard deviation of all entries of the rows ``ids`` around their mean, a scalar."""
    mean = mean_row(rows, ids).mean()
    squares = torch.stack([(part - mean).square().sum() for part in _chunks(rows, ids)])
    return (squares.sum() / (len(ids) * rows.shape[1])).sqrt()


def row_norms(rows: Tensor, ids: Tensor) -> Tensor:
    """Euclidean norm of each of the rows ``ids``, ``(len(ids),)``, in float32 at least."""
    return torch.cat([part.norm(dim=1) for part in _chunks(rows, ids)])


def _chunks(rows: Tensor, ids: Tensor) -> Iterator[Tensor]:
    dtype = torch.promote_types(rows.dtype, torch.float32)
    for chunk in torch.split(ids.to(rows.device), _CHUNK_ROWS):
        start = int(chunk[0]) if len(chunk) else 0
        run = slice(start, start + len(chunk))
        # Ids one after the other, as most are, need no copy of their rows.
        is_run = torch.equal(chunk, torch.arange(run.start, run.stop, device=chunk.device))
        yield rows[run if is_run else chunk].to(dtype)
