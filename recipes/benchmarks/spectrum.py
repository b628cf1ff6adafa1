"""Seconds of the spectrum of rows against a full SVD, and the share of a step that watching takes.

    python recipes/benchmarks/spectrum.py [--only spectra|shares] [--quick] [--device cpu]

First table: for each rows x dim, `singular_values` against `torch.linalg.svdvals` in float64 and in
float32, timed in turn in one process (median, range, ratio of medians), and how far the effective
rank is from that of the float64 SVD. The rows are random with a common mean, as embeddings have
one, and for each width also of two spectra that products in float32 cannot resolve.

Second table: one measurement of `EmbeddingSpectrumMonitor` and of `NewTokenUsage` on the model of
recipes/benchmarks/step.py (Qwen-shaped, 5,000 new rows), against its step of stage 1, and the
share of the run that each takes at its default cadence.

On a busy machine give ``--threads 1 --clock cpu``: the processor's time in place of the wall's.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import step as stage_1
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lightning_vocab.callbacks import EmbeddingSpectrumMonitor, NewTokenUsage
from lightning_vocab.callbacks.adoption import is_in_batch
from lightning_vocab.callbacks.row_movement import RowMovement
from lightning_vocab.functional import effective_rank, singular_values
from lightning_vocab.loss import NextTokenLoss
from lightning_vocab.rows import find_split
from lightning_vocab.watched_rows import watch

SHAPES = [(10_000, 896), (10_000, 2_048), (10_000, 4_096), (2_000, 4_096)]
QUICK = [(2_000, 896), (500, 896)]
HARD = (2_000, 896)


def random_rows(height: int, width: int) -> Tensor:
    """Rows of unit deviation around a common mean of as large a norm."""
    return 0.02 * (torch.randn(height, width) + torch.randn(width))


def rows_from(values: Tensor, height: int) -> Tensor:
    left = torch.linalg.qr(torch.randn(height, len(values), dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64)).Q
    rows: Tensor = (left * values) @ right
    return rows.float()


def cases(args: argparse.Namespace) -> list[tuple[str, Tensor]]:
    torch.manual_seed(0)
    shapes = QUICK if args.quick else SHAPES
    height, width = HARD
    spread = 10 ** (-6 * torch.arange(width, dtype=torch.float64) / width)
    cases = [(f"{each[0]:,} x {each[1]:,}", random_rows(*each)) for each in shapes]
    cases.append((f"{height:,} x {width:,}, 1 to 1e-6", rows_from(spread, height)))
    line = torch.randn(height, 1) * torch.randn(width)
    cases.append((f"{height:,} x {width:,}, a line", line + 1e-3 * torch.randn(height, width)))
    return cases


def timed(call: Callable[[], Any], args: argparse.Namespace) -> tuple[float, Any]:
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    start = clock()
    result = call()
    if args.device == "cuda":
        torch.cuda.synchronize()
    return clock() - start, result


def spectra(args: argparse.Namespace) -> Table:
    table = Table(title=f"singular values, seconds ({args.clock}), {args.device}")
    table.add_column("rows")
    for title in ("SVD 64", "SVD 32", "ours", "ours / 64", "ours / 32", "eff. rank", "off by"):
        table.add_column(title, justify="right")
    for name, rows in cases(args):
        rows = rows.to(args.device)
        ways: dict[str, Callable[[], Tensor]] = {
            "64": lambda rows=rows: torch.linalg.svdvals(rows.double()),  # type: ignore[misc]
            "32": lambda rows=rows: torch.linalg.svdvals(rows),  # type: ignore[misc]
            "ours": lambda rows=rows: singular_values(rows),  # type: ignore[misc]
        }
        taken: dict[str, list[float]] = {way: [] for way in ways}
        found: dict[str, Tensor] = {}
        for _ in range(args.repeats):
            for way, call in ways.items():
                seconds, found[way] = timed(call, args)
                taken[way].append(seconds)
        middle = {way: median(each) for way, each in taken.items()}
        ranks = {way: float(effective_rank(found[way])) for way in ("64", "ours")}
        ratios = [f"{middle['ours'] / middle[way]:.2f}" for way in ("64", "32")]
        off = f"{100 * abs(ranks['ours'] / ranks['64'] - 1):.1e} %"
        table.add_row(name, *map(shown, taken.values()), *ratios, f"{ranks['64']:,.1f}", off)
    return table


def shown(seconds: list[float]) -> str:
    return f"{median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


class Shown(NamedTuple):
    """One line of the second table."""

    name: str
    call: Callable[[], Any]
    cadence: int


def shares(args: argparse.Namespace) -> Table:
    """One call of each callback's work against one step, and its share of a run."""
    calls = work(args)
    taken: dict[str, list[float]] = {each.name: [] for each in calls}
    for repeat in range(args.repeats + 1):  # the first warms up
        for each in calls:
            seconds, _ = timed(each.call, args)
            if repeat:
                taken[each.name].append(seconds)
    table = Table(title=f"watching the step of stage 1, seconds ({args.clock}), {args.device}")
    for title in ("what", "seconds", "every n steps", "share of the run"):
        table.add_column(title, justify="left" if title == "what" else "right")
    a_step = median(taken[calls[0].name])
    for name, _, cadence in calls:
        share = median(taken[name]) / cadence / a_step
        table.add_row(name, shown(taken[name]), str(cadence), f"{100 * share:.3f} %")
    return table


def work(args: argparse.Namespace) -> list[Shown]:
    sys.argv = [sys.argv[0], "--device", args.device]
    options = stage_1.parse()
    if args.quick:
        options.new_rows, options.time = 500, 64
    model = stage_1.make_model(options)
    optimizer = torch.optim.AdamW(stage_1.split(model, options.new_rows), lr=1e-3)
    loss, batch = NextTokenLoss(model, options.chunk_size), stage_1.make_batch(options)

    def step() -> None:
        torch.autograd.backward(loss.mean_nats(batch))
        optimizer.step()
        optimizer.zero_grad()

    def movement() -> None:
        moved.before_step()
        moved.after_step()

    parts = find_split(model)
    assert parts is not None
    rows = parts[0].rows
    kept = watch(model, None, None, seed=0)
    moved = RowMovement([rows], NewTokenUsage().num_old_rows)
    every = EmbeddingSpectrumMonitor().every_n_steps
    return [
        Shown("step of stage 1", step, 1),
        Shown("spectrum, old rows frozen", lambda: kept[0].measure(), every),
        Shown(
            "spectrum, old rows train", lambda: watch(model, None, None, seed=0)[0].measure(), every
        ),
        Shown("movement of rows", movement, NewTokenUsage().every_n_steps),
        Shown("new tokens of a batch", lambda: is_in_batch(rows, batch), 1),
    ]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small shapes, to try the script")
    parser.add_argument("--only", choices=["spectra", "shares"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


def main() -> None:
    args, console = parse(), Console(width=130)
    torch.set_num_threads(args.threads)
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    console.print(f"{versions}, {platform.machine()}, {args.threads} threads")
    if args.only != "shares":
        console.print(spectra(args))
    if args.only != "spectra":
        console.print(shares(args))


if __name__ == "__main__":
    main()
