"""Tables and curves of `compare_initializers.py`, from its JSON file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from rich.table import Table

Runs = dict[str, list[dict[str, Any]]]
ROW_COLUMNS = ("rank, step 0", "rank, end", "nearest old cosine, step 0", "cosine, end")


def by_method(found: dict[str, Any]) -> Runs:
    """The runs of each method, the best on new text at the end first."""
    runs: Runs = {}
    for run in found["runs"].values():
        runs.setdefault(run["method"], []).append(run)
    return dict(sorted(runs.items(), key=lambda item: mean(run["new"][-1] for run in item[1])))


def over_seeds(values: Iterable[float], digits: int = 3) -> str:
    """Mean, and the smallest and the largest value where they differ."""
    values = list(values)
    low, middle, high = (f"{each:.{digits}f}" for each in (min(values), mean(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def tables(name: str, found: dict[str, Any]) -> list[Table]:
    """Bits per byte at the ends of the stages, and what was measured of the rows."""
    steps = found["setting"]["points"]
    shown = [0, steps.index(found["setting"]["stage_1"]), len(steps) - 1]
    columns = ["method", *(f"{text}, step {steps[at]}" for text in ("new", "old") for at in shown)]
    bits = table(f"{name}: bits per byte, mean (range over seeds)", columns)
    rows = table(
        f"{name}: the rows, mean (range over seeds)",
        ["method", "made itself", "CPU s", "mass of new", *ROW_COLUMNS],
    )
    for method, runs in by_method(found).items():
        cells = [[run[text][at] for run in runs] for text in ("new", "old") for at in shown]
        bits.add_row(method, *map(over_seeds, cells))
        coverage = runs[0]["coverage"]
        ends = [
            over_seeds((run[key][at] for run in runs), digits)
            for key, digits in (("effective_rank", 0), ("nearest_old_cosine", 2))
            for at in (0, -1)
        ]
        rows.add_row(
            method,
            "all" if coverage is None else f"{coverage:.1%}",
            # The first run that needs a stored space makes it: what it costs is the largest.
            f"{max(run['cpu_seconds'] for run in runs):.2f}",
            over_seeds((run["mass_of_new_tokens"] for run in runs), 4),
            *ends,
        )
    new, old = (f"{found['base'][text]:.3f}" for text in ("new", "old"))
    bits.add_row("not expanded", new, "", "", old)
    return [bits, rows]


def table(title: str, columns: list[str]) -> Table:
    made = Table(title=title)
    for column in columns:
        made.add_column(column, justify="left" if column == "method" else "right")
    return made


def notes(found: dict[str, Any], left_out: dict[str, str | None]) -> list[str]:
    """What the tables leave unsaid."""
    lines = [
        f"{found['num_new']} new tokens, {found['num_old']} old ones: a mean row's mass is at most "
        f"m / (n + m) = {found['bound_of_mean_rows']:.4f} for all of them."
    ]
    for name, needs in left_out.items():
        lines.append(f"{name}: left out, the setting lacks what it needs ({needs}).")
    for method, runs in by_method(found).items():
        said = [runs[0][key] for key in ("coverage_in_words", "space_in_words") if runs[0][key]]
        lines += [f"{method}: {each}" for each in said]
    if len(found["runs"]) < 2:
        return lines
    lines.append("Rank correlation of the methods' order on new text with their order at the end:")
    steps = found["setting"]["points"]
    lines.append(
        "  " + ", ".join(f"step {s} {r:+.2f}" for s, r in zip(steps, orders(found), strict=True))
    )
    return lines


def orders(found: dict[str, Any]) -> list[float]:
    """Spearman's correlation of the order at each point with that at the end."""
    runs = by_method(found).values()
    bits = torch.tensor([[mean(values) for values in curves(each, "new")] for each in runs])
    ranks = bits.argsort(dim=0).argsort(dim=0).double()
    return [float(torch.corrcoef(torch.stack([each, ranks[:, -1]]))[0, 1]) for each in ranks.T]


def curves(runs: list[dict[str, Any]], text: str) -> list[tuple[float, ...]]:
    """The values of all seeds at each point."""
    return list(zip(*(run[text] for run in runs), strict=True))


def figure(name: str, found: dict[str, Any], path: Path) -> None:
    """Bits per byte against steps, a line for each method: the mean over the seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    plot, axes = pyplot.subplots(1, 2, figsize=(13, 5.5))
    colours = [pyplot.get_cmap("tab20")(number) for number in range(20)]
    for axis, text in zip(axes, ("new", "old"), strict=True):
        for number, (method, runs) in enumerate(by_method(found).items()):
            values = [mean(each) for each in curves(runs, text)]
            look = {"color": colours[number % 20], "linestyle": ("-", "--", ":")[number % 3]}
            axis.plot(runs[0]["steps"], values, marker=".", label=method, **look)
        axis.axhline(found["base"][text], color="black", linewidth=0.8, label="not expanded")
        axis.axvline(found["setting"]["stage_1"], color="grey", linewidth=0.8)
        axis.set(title=f"{text} text", xlabel="steps", ylabel="bits per byte", yscale="log")
    axes[1].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    plot.suptitle(f"{name}: {found['num_new']} new tokens")
    plot.tight_layout()
    plot.savefig(path, dpi=110)
    pyplot.close(plot)
