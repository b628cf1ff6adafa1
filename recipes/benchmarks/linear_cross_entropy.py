"""Time and peak memory of the streamed loss against plain cross-entropy on all logits.

    python recipes/benchmarks/linear_cross_entropy.py [--rows 32000] [--dim 512] [--positions 2048]

One forward and backward pass from the hidden states on, old rows frozen and trained. `skipping` is
the streamed loss with ``skip_negligible``; it has something to skip where rows are as unlikely as
those of other languages are in a text of one: ``--negligible`` is the share of old rows whose
logits lie 20 nats below the others'. Times are taken in turn in one process; each peak is that of a
process of its own, above what its inputs take (CPU: of the resident set, on Linux only; GPU: of the
allocator). The worst cosine between a gradient and the plain one's says that all do the same; the
distance is that of the gradient of the hidden states from the plain one's, relative.

Measured with the defaults on one core of a shared machine: plain 1073 MiB, streamed 37 MiB (old
rows frozen) and 127 MiB (trained), in 0.67 and 0.85 times the seconds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_vocab.functional import RowBlock, linear_cross_entropy
from lightning_vocab.functional.linear_cross_entropy import CHUNK_SIZE

WAYS = ("plain", "streamed", "skipping")


def make_inputs(args: argparse.Namespace) -> tuple[Tensor, Tensor, list[RowBlock]]:
    """Hidden states, targets, and a block of old and one of new rows."""
    torch.manual_seed(0)
    options = {"dtype": getattr(torch, args.dtype), "device": args.device}
    hidden = torch.randn(args.positions, args.dim, **options)
    hidden[:, 0] = 1.0
    hidden.requires_grad_()
    scale = args.dim**-0.5
    old = torch.randn(args.rows, args.dim, **options) * scale
    old[args.rows - round(args.negligible * args.rows) :, 0] = -20.0
    old.requires_grad_(args.train_old)
    new = (torch.randn(args.new_rows, args.dim, **options) * scale).requires_grad_()
    likely = round((1 - args.negligible) * args.rows)
    targets = torch.randint(max(likely, 1), (args.positions,), device=args.device)
    return hidden, targets, [RowBlock(old), RowBlock(new)]


def run(
    way: str, hidden: Tensor, targets: Tensor, blocks: list[RowBlock], chunk_size: int
) -> list[Tensor]:
    """The gradients of the hidden states and of the blocks that train."""
    if way == "plain":
        logits = torch.cat([F.linear(hidden, block.weight) for block in blocks], dim=-1)
        loss = F.cross_entropy(logits.float(), targets)
    else:
        skips = way == "skipping"
        options = {"chunk_size": chunk_size, "skip_negligible": skips}
        loss = linear_cross_entropy(hidden, targets, blocks, **options)
    leaves = [hidden, *(block.weight for block in blocks if block.weight.requires_grad)]
    return list(torch.autograd.grad(loss, leaves))


def peak_megabytes(args: argparse.Namespace, way: str) -> float:
    """Peak of one pass above the inputs, in MiB."""
    inputs = make_inputs(args)
    if args.device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run(way, *inputs, args.chunk_size)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    # A small pass first, so that libraries and thread pools are not counted.
    hidden, targets, blocks = inputs
    run(way, hidden[:8], targets[:8].clamp(max=63), [RowBlock(blocks[0].weight[:64])], 8)
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark to what is resident
    start = highest_megabytes()
    run(way, *inputs, args.chunk_size)
    return highest_megabytes() - start


def highest_megabytes() -> float:
    """High-water mark of this process's resident set in MiB.

    Not ``ru_maxrss``: a process inherits that from the one that started it.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM"))


def peak_in_process(way: str, arguments: list[str]) -> float:
    """`peak_megabytes` of a fresh process, whose high-water mark nothing else has raised."""
    command = [sys.executable, __file__, *arguments, "--peak-of", way]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def seconds(args: argparse.Namespace) -> dict[str, float]:
    """Median seconds of a pass, both ways taken in turn."""
    inputs = make_inputs(args)
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    for repeat in range(args.repeats + 1):
        for way in WAYS:
            start = time.perf_counter()
            run(way, *inputs, args.chunk_size)
            if args.device == "cuda":
                torch.cuda.synchronize()
            if repeat:  # the first one warms up
                taken[way].append(time.perf_counter() - start)
    return {way: median(times) for way, times in taken.items()}


def compare(args: argparse.Namespace, way: str) -> tuple[float, float]:
    """Smallest cosine between gradients of one way and the plain one's; distance of the first."""
    inputs = make_inputs(args)
    both = [run(each, *inputs, args.chunk_size) for each in ("plain", way)]
    flat = [[gradient.flatten().double() for gradient in gradients] for gradients in both]
    pairs = list(zip(*flat, strict=True))
    expected, found = pairs[0]
    distance = float((found - expected).norm() / expected.norm())
    return min(float(F.cosine_similarity(a, b, dim=0)) for a, b in pairs), distance


def parse() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=32_000)
    parser.add_argument("--new-rows", type=int, default=2_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--positions", type=int, default=2_048)
    parser.add_argument("--negligible", type=float, default=0.0)
    parser.add_argument("--chunk-size", type=int, default=CHUNK_SIZE)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--train-old", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--peak-of", choices=WAYS, help=argparse.SUPPRESS)
    return parser.parse_args(), sys.argv[1:]


def main() -> None:
    args, arguments = parse()
    if args.peak_of:
        print(peak_megabytes(args, args.peak_of))
        return
    print("old rows | way      | seconds | ratio | peak MiB | worst cosine | distance")
    for train_old in (False, True):
        args.train_old = train_old
        passed = [*arguments, "--train-old"] if train_old else arguments
        times = seconds(args)
        for way in WAYS:
            peak, (cosine, distance) = peak_in_process(way, passed), compare(args, way)
            old, ratio = "trained" if train_old else "frozen", times[way] / times["plain"]
            print(
                f"{old:8} | {way:8} | {times[way]:7.3f} | {ratio:5.2f} | {peak:8.0f} | "
                f"{cosine:12.6f} | {distance:.1e}"
            )


if __name__ == "__main__":
    main()
