"""Sparsemax, a softmax that gives exact zeros: of scores, and of cosines to many keys."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_vocab.functional.neighbours import cosine_blocks, largest


class SparseWeights(NamedTuple):
    """Weights of each query over some keys, query after query.

    Args:
        ids: Keys with a positive weight, ``(num_weights,)``, the largest weight of a query first.
        weights: Their weights, ``(num_weights,)``; those of a query sum to 1.
        counts: Number of weights of each query, ``(queries,)``.
    """

    ids: Tensor
    weights: Tensor
    counts: Tensor


def sparsemax(scores: Tensor) -> Tensor:
    """Euclidean projection of scores onto the probability simplex, along the last dimension.

    ``p = max(z - tau, 0)`` with ``tau`` such that p sums to 1 (Martins & Astudillo, "From Softmax
    to Sparsemax", 2016, algorithm 1).

    Args:
        scores: Scores ``(..., keys)``, in float32 or float64.

    Returns:
        Weights of the same shape; most are exactly 0 where scores differ much.

    Example:
        >>> sparsemax(torch.tensor([1.0, 0.5, -1.0]))
        tensor([0.7500, 0.2500, 0.0000])
    """
    ordered = scores.sort(dim=-1, descending=True).values
    return (scores - _threshold(ordered)).clamp_min(0)


@torch.no_grad()
def sparsemax_cosine(
    queries: Tensor,
    keys: Tensor,
    temperature: float = 1.0,
    *,
    first_width: int = 128,
    block_elements: int = 1 << 24,
) -> SparseWeights:
    """For each query the sparsemax of its cosines to all keys, divided by a temperature.

    Only keys that can have a weight are looked at: the best ``first_width``, and four times as many
    for the queries whose every candidate got one, until one got none or no key is left. The result
    is that of all keys, whatever ``first_width`` is.

    Cost: ``queries * keys * dim`` products. Memory: unit copies of both and one block of cosines.

    Args:
        queries: Rows other than zero, ``(queries, dim)``.
        keys: Rows other than zero, ``(keys, dim)``.
        temperature: Divides the cosines; small values leave few keys.
        first_width: Keys looked at first.
        block_elements: Cosines in memory at a time.

    Raises:
        ValueError: If the temperature is not positive, or queries and keys do not fit.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}.")
    ids, weights, counts = [], [], []
    for block in cosine_blocks(queries, keys, block_elements):
        width = min(first_width, len(keys))
        chosen = torch.zeros(len(block), dtype=torch.long, device=block.device)
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        open_rows = torch.arange(len(block), device=block.device)
        while len(open_rows):
            rows = block if len(open_rows) == len(block) else block[open_rows]
            best, places = largest(rows, width)
            best /= temperature
            given = (best - _threshold(best)).clamp_min_(0)
            is_done = (given[:, -1] == 0) | (width == len(keys))
            done = open_rows[is_done]
            chosen[done] = (given[is_done] > 0).sum(dim=1)
            found.append((done, places[is_done], given[is_done]))
            open_rows, width = open_rows[~is_done], min(4 * width, len(keys))
        row_ids, row_weights = _flattened(found)
        ids.append(row_ids)
        weights.append(row_weights)
        counts.append(chosen)
    return SparseWeights(torch.cat(ids), torch.cat(weights), torch.cat(counts))


def _flattened(found: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Positive weights of all rows in the order of the rows, which were done in several rounds."""
    width = max(given.shape[1] for _, _, given in found)
    order = torch.cat([rows for rows, _, _ in found]).argsort()
    places = torch.cat([_widened(places, width) for _, places, _ in found])[order]
    given = torch.cat([_widened(given, width) for _, _, given in found])[order]
    return places[given > 0], given[given > 0]


def _widened(values: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, width - values.shape[1]))


def _threshold(ordered: Tensor) -> Tensor:
    """Tau of scores in descending order ``(..., keys)``: ``(..., 1)``."""
    ranks = torch.arange(1, ordered.shape[-1] + 1, dtype=ordered.dtype, device=ordered.device)
    sums = ordered.cumsum(dim=-1)
    size = (1 + ranks * ordered > sums).sum(dim=-1, keepdim=True)
    return (sums.gather(-1, size - 1) - 1) / size
