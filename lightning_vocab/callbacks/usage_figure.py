"""A picture of how new tokens are trained and taken up, over the steps of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

History = dict[str, list[tuple[int, float]]]
"""Step and value of everything that was logged, by name."""

_BINS = 40


def draw_usage(history: Mapping[str, Sequence[tuple[int, float]]], counts: Tensor) -> Figure:
    """Adoption, mass, batches per new row, and how far old and new rows move.

    The figure belongs to no window and to no pyplot state, so nothing has to be closed.

    Args:
        history: What `NewTokenUsage` logged, by name.
        counts: Batches of all ranks that each new token stood in, ``(num_new,)``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.0, 7.0), layout="constrained")
    grid = figure.subplots(2, 3)
    _draw_lines(grid[0, 0], history, "adoption/", "adoption, where a new token is the target")
    _draw_lines(grid[0, 1], history, "new_token_mass/", "probability of new tokens")
    _draw_lines(grid[0, 1], history, "new_token_share/", "probability of new tokens", "--")
    grid[0, 0].set_ylim(-0.02, 1.02)
    grid[0, 2].hist(counts.double().cpu().numpy(), bins=_BINS)
    grid[0, 2].set(
        xlabel="training batches with its token",
        ylabel="new rows",
        title=f"direct training of {len(counts)} new rows",
    )
    _draw_lines(grid[1, 0], history, "gradient_norm_", "gradient norm")
    _draw_lines(grid[1, 1], history, "update_norm_", "movement of a row in a step")
    for axes in (grid[1, 0], grid[1, 1]):
        axes.set_yscale("symlog", linthresh=1e-8)  # frozen rows move by 0
    _draw_lines(grid[1, 2], history, "untouched_rows", "new rows in no batch so far")
    return figure


def _draw_lines(
    axes: Any,
    history: Mapping[str, Sequence[tuple[int, float]]],
    start: str,
    title: str,
    style: str = "-",
) -> None:
    """One line for every name that begins so, under what follows."""
    for name, points in history.items():
        if name.startswith(f"usage/{start}"):
            label = name.removeprefix("usage/")
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, style, marker=".", label=label)
    axes.set(xlabel="optimizer step", title=title)
    if axes.lines:
        axes.legend(fontsize=8)
