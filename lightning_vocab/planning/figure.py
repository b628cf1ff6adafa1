"""The picture of `lightning-vocab plan`: tokens and compute against the number of new tokens."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_vocab.planning.advice import Advice
from lightning_vocab.planning.points import Plan
from lightning_vocab.vocabulary.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def can_draw() -> bool:
    """Whether matplotlib is installed (``pip install lightning-vocab[plots]``)."""
    return find_spec("matplotlib") is not None


def draw_plan(plan: Plan, advice: Advice, path: Path) -> None:
    """Write the curve as a PNG: tokens per byte, changes, and the share of rarely seen tokens.

    The figure belongs to no window and to no pyplot state, so nothing has to be closed.

    Args:
        plan: What was measured.
        advice: The recommendation, whose size is marked.
        path: The file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 9.0), layout="constrained")
    panels: list[Axes] = list(figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 2]))
    _draw_tokens(plan, panels[0])
    _draw_changes(plan, panels[1])
    _draw_rare(plan, panels[2])
    panels[-1].set_xlabel("new tokens")
    panels[-1].set_xscale("symlog", linthresh=10)
    panels[-1].set_xlim(0, plan.largest)
    panels[-1].xaxis.set_major_formatter("{x:,.0f}")
    size = advice.num_new_tokens
    if advice.method in ("continued_bpe", "continued_bpe_into_slots"):
        for axes in panels:
            axes.axvline(size, color="black", linestyle="--", label=f"recommended: {size:,}")
        figure.suptitle(f"Recommended: {counted(size, 'new token')}")
    elif advice.method == "none":
        figure.suptitle("Recommended: do not expand the vocabulary")
    else:
        figure.suptitle(
            f"Recommended: {counted(size, 'listed token')}; the curve shows learned ones"
        )
    for axes in panels:
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    figure.savefig(path, dpi=120)


def _draw_tokens(plan: Plan, axes: Axes) -> None:
    sizes = plan.curve_sizes()
    for name, curve in plan.held_out.items():
        axes.plot(sizes, curve.tokens_per_byte[sizes], label=f"{name}, held out")
    axes.plot(
        sizes,
        plan.growth.tokens_per_byte[sizes],
        color="gray",
        linestyle=":",
        label="text that the tokens were learned from",
    )
    axes.set_ylabel("tokens per byte")
    axes.set_ylim(bottom=0)


def _draw_changes(plan: Plan, axes: Axes) -> None:
    sizes = plan.curve_sizes()
    axes.plot(sizes, -100 * plan.all_held_out.share_saved[sizes], label="tokens, held out")
    flop = plan.flop_per_byte()
    if flop is not None:
        axes.plot(sizes, 100 * (flop[sizes] / flop[0] - 1), label="FLOP per byte, held out")
    axes.set_ylabel("change against the base, %")


def _draw_rare(plan: Plan, axes: Axes) -> None:
    sizes, floor = plan.curve_sizes()[1:], plan.budget.floor
    rare = [100 * float((plan.expected_occurrences(size) < floor).mean()) for size in sizes]
    axes.plot(sizes, rare, color="tab:red")
    axes.set_ylabel(f"new tokens seen less\nthan {counted(floor, 'time')}, %")
    axes.set_ylim(0, 100)
