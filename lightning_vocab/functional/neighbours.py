"""Nearest rows by cosine, a block of keys at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

_GROUP = 16
"""Columns of which first only the largest is looked at; a selection among all is far slower."""


class NearestRows(NamedTuple):
    """The nearest key of each query.

    Args:
        values: Cosine to it, ``(queries,)``.
        indices: Its index, ``(queries,)``.
    """

    values: Tensor
    indices: Tensor


@torch.no_grad()
def nearest_cosine(queries: Tensor, keys: Tensor, block_size: int = 4096) -> NearestRows:
    """For each query the key with the largest cosine.

    Computed in float32 (float64 for float64 queries). A zero row has no direction: its cosine to
    everything is 0. Cost: ``queries * keys * dim`` products. Memory: unit copies of the queries and
    of one block of keys, and ``(block_size, block_size)`` cosines.

    Args:
        queries: Rows, ``(queries, dim)``.
        keys: Rows to search, ``(keys, dim)``.
        block_size: Queries and keys compared at a time.

    Raises:
        ValueError: If there is no key, the widths differ or the block is empty.
    """
    _check_fit(queries, keys)
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1 row, got {block_size}.")
    dtype = torch.promote_types(queries.dtype, torch.float32)
    units = F.normalize(queries.to(dtype), dim=1)
    values = torch.full((len(queries),), -torch.inf, dtype=dtype, device=queries.device)
    indices = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
    for first in range(0, len(keys), block_size):
        block = F.normalize(keys[first : first + block_size].to(dtype), dim=1)
        for start in range(0, len(queries), block_size):
            part = slice(start, start + block_size)
            best, place = (units[part] @ block.T).max(dim=1)
            is_nearer = best > values[part]
            values[part] = torch.where(is_nearer, best, values[part])
            indices[part] = torch.where(is_nearer, place + first, indices[part])
    return NearestRows(values, indices)


@torch.no_grad()
def cosine_blocks(queries: Tensor, keys: Tensor, block_elements: int = 1 << 24) -> Iterator[Tensor]:
    """Cosines of some queries at a time to all keys: ``(some, keys)``, in the queries' order.

    Computed in float32 (float64 for float64 queries). A zero row has the cosine 0 to everything.
    A block may be changed by the caller, and the next one is written over it.

    Args:
        queries: Rows, ``(queries, dim)``.
        keys: Rows, ``(keys, dim)``.
        block_elements: Cosines in a block, unless one query alone has more.

    Raises:
        ValueError: If there is no key, the widths differ or the block is empty.
    """
    _check_fit(queries, keys)
    if block_elements < 1:
        raise ValueError(f"block_elements must be at least 1, got {block_elements}.")
    dtype = torch.promote_types(queries.dtype, torch.float32)
    units = F.normalize(keys.to(dtype), dim=1)
    size = max(1, block_elements // len(keys))
    block = units.new_empty(min(size, len(queries)), len(keys))
    for part in torch.split(queries, size):
        yield torch.mm(F.normalize(part.to(dtype), dim=1), units.T, out=block[: len(part)])


@torch.no_grad()
def best_cosines(
    queries: Tensor, keys: Tensor, k: int, block_elements: int = 1 << 24
) -> tuple[Tensor, Tensor]:
    """The ``k`` keys with the largest cosines to each query, the largest first.

    Cost: ``queries * keys * dim`` products. Memory: unit copies of both and one block of cosines.

    Args:
        queries: Rows, ``(queries, dim)``.
        keys: Rows, ``(keys, dim)``.
        k: Keys of each query, at most as many as there are.
        block_elements: Cosines in memory at a time.

    Returns:
        Cosines and indices of keys, both ``(queries, k)``.

    Raises:
        ValueError: If ``k`` is not from 1 to the number of keys, or queries and keys do not fit.
    """
    _check_fit(queries, keys)
    if not 1 <= k <= len(keys):
        raise ValueError(f"k must be from 1 to the number of keys, {len(keys)}: got {k}.")
    found = [largest(block, k) for block in cosine_blocks(queries, keys, block_elements)]
    values, indices = zip(*found, strict=True)
    return torch.cat(values), torch.cat(indices)


def largest(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` largest values of each row and their places, the largest first.

    They lie in the k groups of columns whose own largest values are the largest, so only these
    groups are sorted. Of equal values any may be taken.

    Args:
        rows: Rows, ``(rows, columns)``.
        k: Values of each row, at most as many as there are columns.

    Returns:
        Values and columns, both ``(rows, k)``.
    """
    height, width = rows.shape
    num_groups = width // _GROUP
    if num_groups < 4 * k:  # little would be left out
        values, columns = rows.topk(k, dim=1)
        return values, columns
    # A group is every num_groups-th column, so that the maxima are taken of whole runs of memory.
    heads = rows[:, : _GROUP * num_groups].view(height, _GROUP, num_groups).amax(dim=1)
    groups = heads.topk(k, dim=1, sorted=False).indices
    steps = num_groups * torch.arange(_GROUP, device=rows.device)
    columns = (groups.unsqueeze(1) + steps[:, None]).flatten(1)
    rest = torch.arange(_GROUP * num_groups, width, device=rows.device)
    columns = torch.cat([columns, rest.expand(height, -1)], dim=1)
    values, places = rows.gather(1, columns).topk(k, dim=1)
    return values, columns.gather(1, places)


def _check_fit(queries: Tensor, keys: Tensor) -> None:
    fits = queries.ndim == keys.ndim == 2 and queries.shape[1] == keys.shape[1]
    if not fits or len(keys) == 0:
        raise ValueError(
            "Expected queries (queries, dim) and at least one key (keys, dim) of the same width, "
            f"got {tuple(queries.shape)} and {tuple(keys.shape)}."
        )
