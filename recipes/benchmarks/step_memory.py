"""Memory of a step of stage 1 against positions and vocabulary, for each way of step.py; a plot.

    python recipes/benchmarks/step_memory.py [--times 256 512 1024] [--out step_memory.png]

What a step adds to the memory that the model takes, in MiB, each in a process of its own, for
batches of 4 and both shapes of recipes/benchmarks/step.py: 151,936 rows of width 896 (tied) and
32,000 of width 512 (untied).
"""

from __future__ import annotations

import argparse

import step
from matplotlib import pyplot
from rich.console import Console
from rich.progress import track
from rich.table import Table

BATCH = 4


def measure(args: argparse.Namespace, ways: list[str]) -> dict[tuple[str, str], list[float]]:
    """MiB of each shape and way, in order of the times."""
    found: dict[tuple[str, str], list[float]] = {}
    cases = [(shape, way, time) for shape in step.SHAPES for way in ways for time in args.times]
    for shape, way, time in track(cases, "Measuring"):
        given = ["--shape", shape, "--dtype", args.dtype, "--batch", BATCH, "--time", time]
        megabytes = step.in_process(way, [*map(str, given), "--chunk-size", str(args.chunk_size)])
        found.setdefault((shape, way), []).append(megabytes)
    return found


def show(args: argparse.Namespace, found: dict[tuple[str, str], list[float]]) -> None:
    table = Table(title=f"MiB that a step adds, {args.dtype}, batch {BATCH}")
    for title in ("rows", "way", *(f"{BATCH} x {time}" for time in args.times)):
        table.add_column(title, justify="right")
    for (shape, way), megabytes in found.items():
        shown = [
            f"{each:,.0f} ({found[shape, 'ours'][i] / each:.3f})"
            for i, each in enumerate(megabytes)
        ]
        table.add_row(f"{step.SHAPES[shape].rows:,}", way, *shown)
    Console(width=120).print(table, "In brackets: ours / it.")


def plot(args: argparse.Namespace, found: dict[tuple[str, str], list[float]]) -> None:
    figure, axes = pyplot.subplots(layout="constrained")
    positions = [BATCH * time for time in args.times]
    styles = dict(zip(step.SHAPES, ("o-", "s--"), strict=True))
    colors = {way: f"C{index}" for index, way in enumerate(step.WAYS)}
    for (shape, way), megabytes in found.items():
        label = f"{way}, {step.SHAPES[shape].rows:,} rows"
        axes.plot(positions, megabytes, styles[shape], color=colors[way], label=label)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="positions (batch x time)",
        ylabel="memory that a step adds, MiB",
        title=f"Stage 1, {args.dtype}",
        xticks=positions,
        xticklabels=[f"{each:,}" for each in positions],
    )
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(args.out, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", nargs="+", type=int, default=[256, 512, 1024])
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--chunk-size", type=int, default=step.CHUNK_SIZE)
    parser.add_argument("--ways", nargs="+", choices=step.WAYS, default=None)
    parser.add_argument("--out", default="step_memory.png")
    args = parser.parse_args()
    ways = ["ours", *(w for w in args.ways or step.available(1) if w not in ("ours", "logits"))]
    found = measure(args, ways)
    show(args, found)
    plot(args, found)
    print(f"The plot is {args.out}.")


if __name__ == "__main__":
    main()
