"""Our head alone against bare products of the same shapes; for recipes/benchmarks/step.py."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from lightning_vocab.functional import RowBlock, linear_cross_entropy


def timed(call: Callable[[], None], device: str) -> float:
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def seconds(args: argparse.Namespace, rows: int, dim: int) -> tuple[list[float], list[float]]:
    """Seconds of our head alone, forward and backward, and of its floor, in turn."""
    dtype = getattr(torch, args.dtype)
    num = args.batch * args.time
    hidden = torch.randn(num, dim, device=args.device, dtype=dtype).requires_grad_()
    scale = dim**-0.5  # logits of a size that models have: products with denormals are slow
    old = torch.randn(rows, dim, device=args.device, dtype=dtype) * scale
    new = torch.randn(args.new_rows, dim, device=args.device, dtype=dtype) * scale
    new.requires_grad_()
    targets = torch.randint(rows + args.new_rows, (num,), device=args.device)
    taken: list[tuple[float, float]] = []

    def ours_alone() -> None:
        blocks = [RowBlock(old), RowBlock(new)]
        linear_cross_entropy(hidden, targets, blocks, chunk_size=args.chunk_size).backward()

    @torch.no_grad()
    def products() -> None:
        for states in torch.split(hidden.detach(), args.chunk_size):
            error = states @ old.T
            error @ old  # the same shapes as the gradient of the hidden states
            error = states @ new.detach().T
            error @ new.detach()
            error.T @ states

    for repeat in range(args.repeats + 1):
        pair = timed(ours_alone, args.device), timed(products, args.device)
        if repeat:
            taken.append(pair)
    head, floor = zip(*taken, strict=True)
    return list(head), list(floor)
