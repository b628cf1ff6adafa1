"""Mean, covariance and norms of some rows of a matrix, without a float32 copy of the matrix."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_CHUNK_ROWS = 8192  # 128 MiB of float32 at width 4,096; a whole matrix would be gigabytes


def mean_row(rows: Tensor, ids: Tensor) -> Tensor:
    """Mean of the rows ``ids`` of ``rows`` ``(num_rows, …)``, in float32 at least."""
    return torch.stack([part.sum(dim=0) for part in _chunks(rows, ids)]).sum(dim=0) / len(ids)


def covariance(rows: Tensor, ids: Tensor) -> Tensor:
    """Covariance ``(dim, dim)`` of the rows ``ids`` (divided by their number), float32 at least."""
    mean = mean_row(rows, ids)
    total = mean.new_zeros(len(mean), len(mean))
    for part in _chunks(rows, ids):
        centred = part - mean
        total.addmm_(centred.T, centred)
    return total / len(ids)


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
    for chunk in torch.split(ids, _CHUNK_ROWS):
        yield rows[chunk.to(rows.device)].to(dtype)
