"""Orthogonal alignment of two spaces."""

from __future__ import annotations

import torch
from torch import Tensor


def procrustes_rotation(source: Tensor, target: Tensor) -> Tensor:
    """The orthogonal matrix R that minimises ``|| source @ R - target ||`` (Frobenius).

    ``R = U @ Vh`` with ``U S Vh = svd(source.T @ target)`` (Schönemann 1966). Computed in float64.
    The smaller width decides: of spaces of two widths, the narrower one is turned into a part of
    the wider one.

    Args:
        source: Vectors of the pairs in the space to be turned, ``(pairs, width)``.
        target: Vectors of the same pairs in the other space, ``(pairs, width of target)``.

    Returns:
        ``(width, width of target)``, in float32 unless a space is in float64.

    Raises:
        ValueError: If there is no pair, numbers of pairs differ, or a vector is not finite.

    Example:
        >>> turned = procrustes_rotation(torch.eye(2), torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
        >>> turned.round().tolist()
        [[0.0, 1.0], [-1.0, 0.0]]
    """
    if source.ndim != 2 or target.ndim != 2 or len(source) != len(target) or len(source) == 0:
        raise ValueError(
            "Expected the vectors of at least one pair, (pairs, width) in each space, got "
            f"{tuple(source.shape)} and {tuple(target.shape)}."
        )
    if not (source.isfinite().all() and target.isfinite().all()):
        raise ValueError("Expected finite vectors of all pairs, got values that are nan or inf.")
    left, _, right = torch.linalg.svd(source.double().T @ target.double(), full_matrices=False)
    dtype = torch.promote_types(torch.promote_types(source.dtype, target.dtype), torch.float32)
    rotation: Tensor = left @ right
    return rotation.to(dtype)
