"""The norm of gradients that lie on several meshes, and clipping by it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm


@torch.no_grad()
def clip_by_global_norm(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale gradients so that the 2-norm of all of them, over all ranks, is at most ``max_norm``.

    As `torch.nn.utils.clip_grad_norm_`, which takes only parameters that all lie on one mesh. Every
    rank calls it, with gradients of the same parameters.

    Args:
        parameters: Parameters, those without a gradient are left alone.
        max_norm: The bound.

    Returns:
        The norm before clipping, a scalar that is the same on all ranks.

    Example:
        >>> weight = nn.Parameter(torch.zeros(4))
        >>> weight.grad = torch.ones(4)
        >>> float(clip_by_global_norm([weight], 1.0))
        2.0
        >>> round(float(weight.grad.norm()), 4)
        1.0
    """
    by_mesh: dict[Any, list[nn.Parameter]] = {}
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is not None:
            mesh = gradient.device_mesh if isinstance(gradient, DTensor) else None
            by_mesh.setdefault(mesh, []).append(parameter)
    groups = list(by_mesh.values())
    norms = [get_total_norm([p.grad for p in group if p.grad is not None]) for group in groups]
    whole = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
    total = get_total_norm(whole) if whole else torch.zeros(())
    for group in groups:
        clip_grads_with_norm_(group, max_norm, total)
    return total
