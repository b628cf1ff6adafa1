"""Losses of a linear head from other libraries, tried against ours on a batch of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_vocab.functional._row_scorer import dtype_of_products
from lightning_vocab.functional.linear_cross_entropy import RowBlock, linear_cross_entropy

OWN = "own"
_REPEATS = 3
_FASTER = 0.95
"""A kernel is taken where it takes at most this share of our time: less is noise."""

Sum = Callable[[Tensor, Tensor, Tensor, Tensor | None, int, float | None], Tensor]


class Trial(NamedTuple):
    """How another kernel did on a batch.

    Args:
        name: The kernel.
        seconds: Median time of loss and gradients.
        difference: Largest relative difference of the loss and of a gradient (Frobenius norm) from
            ours.
        is_equal: Whether that is within the rounding of the products' dtype.
    """

    name: str
    seconds: float
    difference: float
    is_equal: bool


def loss_of_kernel(name: str) -> Callable[..., Tensor]:
    """The loss of a kernel, called as `linear_cross_entropy` is.

    All kernels but ours work on one matrix: old, new and padding rows are copied together, and all
    of them get a gradient, so the memory is that of two more matrices.

    Args:
        name: ``own``, or a name of `usable_kernels`.
    """
    return linear_cross_entropy if name == OWN else _Other(_SUMS[name])


def usable_kernels(
    hidden: Tensor, blocks: Sequence[RowBlock], softcap: float | None = None
) -> list[str]:
    """Kernels besides ours that can compute the loss here; none where some rows do not train.

    ``torch`` is `torch.nn.functional.linear_cross_entropy` in its chunked form, where torch has it,
    the logits have no cap and the products are not of half precision, in which torch 2.13 adds the
    loss up and comes to a halt; ``liger`` is that of liger-kernel, on a GPU where it is installed.

    Args:
        hidden: Last hidden states, ``(..., dim)``.
        blocks: The rows of the head.
        softcap: Bound of the logits by tanh.
    """
    is_half = dtype_of_products(hidden).itemsize < 4
    trains = [block.weight.requires_grad for block in blocks[:2]]
    if not all(trains) or any(block.dead is not None for block in blocks):
        return []
    can = {
        "torch": softcap is None and not is_half and hasattr(torch.nn, "LinearCrossEntropyOptions"),
        "liger": hidden.is_cuda and find_spec("liger_kernel") is not None,
    }
    return [name for name, usable in can.items() if usable]


def try_kernels(
    names: Sequence[str],
    hidden: Tensor,
    targets: Tensor,
    blocks: Sequence[RowBlock],
    **options: Any,
) -> list[Trial]:
    """Run ours and other kernels on the same batch, in turn; ours is the first of the trials.

    Nothing of the run is touched: the gradients are thrown away. Cost: four losses with gradients
    for each kernel. Memory: the gradients of two kernels, at a time.

    Args:
        names: Names from `usable_kernels`.
        hidden: Last hidden states, ``(..., dim)``.
        targets: As for `linear_cross_entropy`.
        blocks: The rows of the head.
        options: As for `linear_cross_entropy`.
    """
    states = hidden.detach().requires_grad_()
    copies = [_leaf(block) for block in blocks]
    leaves = [states, *(t for copy in copies for t in copy[:2] if t is not None)]
    leaves = [leaf for leaf in leaves if leaf.requires_grad]

    def run(name: str) -> list[Tensor]:
        loss = loss_of_kernel(name)(states, targets, copies, **options)
        return [loss.detach(), *torch.autograd.grad(loss, leaves)]

    ours = run(OWN)
    bound = max(1e-5, torch.finfo(dtype_of_products(hidden)).eps)
    differences = {OWN: 0.0}
    for name in names:  # also warms up
        pairs = zip(run(name), ours, strict=True)
        differences[name] = max(_relative(found, expected) for found, expected in pairs)
    del ours
    taken: dict[str, list[float]] = {name: [] for name in differences}
    for _ in range(_REPEATS):
        for name, seconds in taken.items():
            seconds.append(_timed(run, name, hidden.device))
    return [
        Trial(name, median(taken[name]), difference, difference <= bound)
        for name, difference in differences.items()
    ]


def fastest(trials: Sequence[Trial]) -> str:
    """The fastest kernel that gives our numbers; ours unless another is faster by a twentieth.

    Args:
        trials: What `try_kernels` has found, ours first.

    Example:
        >>> own = Trial("own", 1.0, 0.0, True)
        >>> fastest([own, Trial("torch", 0.97, 1e-7, True), Trial("liger", 0.1, 0.3, False)])
        'own'
        >>> fastest([own, Trial("torch", 0.8, 1e-7, True)])
        'torch'
    """
    own, *others = trials
    good = [each for each in others if each.is_equal and each.seconds <= _FASTER * own.seconds]
    return min(good, key=lambda each: each.seconds, default=own).name


class _Other:
    """The mean over one matrix of all blocks, by a sum of another library."""

    def __init__(self, total: Sum) -> None:
        self._total = total

    def __call__(
        self,
        hidden: Tensor,
        targets: Tensor,
        blocks: Sequence[RowBlock],
        *,
        ignore_index: int = -100,
        softcap: float | None = None,
        logit_scale: float = 1.0,
        **options: Any,
    ) -> Tensor:
        dtype = dtype_of_products(hidden)
        weight = torch.cat([block.weight.to(dtype) for block in blocks])
        biases = [block.bias.to(dtype) for block in blocks if block.bias is not None]
        states = hidden.reshape(-1, hidden.shape[-1]).to(dtype)
        # With `softmax(c * tanh(s * W h / c))` the scale goes to the hidden states.
        states = states if logit_scale == 1.0 else states * logit_scale
        bias = None if not biases else torch.cat(biases) * logit_scale
        flat = targets.reshape(-1)
        with torch.autocast(hidden.device.type, enabled=False):
            total = self._total(states, weight, flat, bias, ignore_index, softcap)
        return total / (flat != ignore_index).sum().clamp(min=1)


def _torch_sum(
    states: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    ignore_index: int,
    softcap: float | None,
) -> Tensor:
    total: Tensor = F.linear_cross_entropy(
        states,
        weight,
        targets,
        linear_bias=bias,
        reduction="sum",
        ignore_index=ignore_index,
        options=torch.nn.LinearCrossEntropyOptions(),
    )
    return total


def _liger_sum(
    states: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    ignore_index: int,
    softcap: float | None,
) -> Tensor:
    from liger_kernel.transformers.fused_linear_cross_entropy import (
        LigerFusedLinearCrossEntropyLoss,
    )

    loss = LigerFusedLinearCrossEntropyLoss(
        ignore_index=ignore_index, reduction="sum", softcap=softcap, accum_dtype=torch.float32
    )
    total: Tensor = loss(weight, states, targets, bias)
    return total


_SUMS: dict[str, Sum] = {"torch": _torch_sum, "liger": _liger_sum}


def _leaf(block: RowBlock) -> RowBlock:
    """A block on the same memory whose gradients go nowhere else."""
    weight = block.weight.detach().requires_grad_(block.weight.requires_grad)
    if block.bias is None:
        return RowBlock(weight, None, block.dead)
    return RowBlock(
        weight, block.bias.detach().requires_grad_(block.bias.requires_grad), block.dead
    )


def _relative(found: Tensor, expected: Tensor) -> float:
    dtype = torch.promote_types(expected.dtype, torch.float32)
    norm = torch.linalg.vector_norm(expected, dtype=dtype)
    distance = torch.linalg.vector_norm(found - expected, dtype=dtype)
    return float(distance / norm) if norm > 0 else float(distance)


def _timed(run: Callable[[str], list[Tensor]], name: str, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run(name)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
