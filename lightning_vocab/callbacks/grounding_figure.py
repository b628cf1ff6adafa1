"""A picture of new rows before and after grounding, beside a space of their meanings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_vocab.callbacks.spectrum_figure import shown_cosines
from lightning_vocab.watched_rows import RowSpectra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NUM_RUNS, _RUN = 5, 10


@dataclass(frozen=True, eq=False)
class RowPicture:
    """What is drawn of one matrix at one time; small enough for a checkpoint.

    Args:
        new_values: Singular values of the new rows.
        old_values: Singular values of the sampled old rows.
        cosines: Between the shown new rows and, behind them, some old ones.
        num_new: How many of those are new.
    """

    new_values: Tensor
    old_values: Tensor
    cosines: Tensor
    num_new: int

    @classmethod
    def of(cls, spectra: RowSpectra, places: Tensor) -> RowPicture:
        """The picture of a measurement.

        Args:
            spectra: The measurement.
            places: Places of the new rows to show among all new rows, 50 at most.
        """
        # Old rows ascend by id, and the first of them are bytes and special tokens.
        spread = torch.linspace(0, len(spectra.old) - 1, min(len(spectra.old), _NUM_RUNS * _RUN))
        shown = replace(
            spectra,
            new=spectra.new[places.to(spectra.new.device)],
            old=spectra.old[spread.long().to(spectra.old.device)],
        )
        cosines, num_new = shown_cosines(shown)
        return cls(spectra.new_values.cpu(), spectra.old_values.cpu(), cosines.cpu(), num_new)

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint; the fields by name."""
        return dict(vars(self))


def shown_places(num_tokens: int) -> Tensor:
    """Five stretches of ten neighbours, evenly spread; all where there are no more than 50.

    Neighbours in a list of pairs often belong together, so the stretches show as squares.

    Args:
        num_tokens: Number of tokens, in the order of their pairs.

    Example:
        >>> shown_places(1000)[8:12].tolist()
        [8, 9, 247, 248]
    """
    if num_tokens <= _NUM_RUNS * _RUN:
        return torch.arange(num_tokens)
    starts = torch.linspace(0, num_tokens - _RUN, _NUM_RUNS).long()
    return (starts.unsqueeze(1) + torch.arange(_RUN)).flatten()


def draw_grounding(
    before: dict[str, RowPicture], after: dict[str, RowPicture], space: str, vectors: Tensor
) -> Figure:
    """Spectra and cosines of each matrix before and after, and the cosines of the meanings.

    The figure belongs to no window and to no pyplot state, so nothing has to be closed.

    Args:
        before: Pictures of the matrices by their role.
        after: The same at the end.
        space: Name of the reference space.
        vectors: Vectors in it of the tokens shown, ``(num_shown, width)``.
    """
    from matplotlib.figure import Figure

    size = (17.0, 4.2 * len(after))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(after), 4, squeeze=False, width_ratios=[1.15, 1, 1, 1])
    units = F.normalize(vectors.float(), dim=1)
    for axes, (role, last) in zip(grid, after.items(), strict=True):
        _draw_spectra(axes[0], role, before[role], last)
        old = f"{last.num_new} new rows, then {len(last.cosines) - last.num_new} old"
        _draw_cosines(axes[1], before[role].cosines, last.num_new, f"cosines before: {old}")
        _draw_cosines(axes[2], last.cosines, last.num_new, f"cosines after: {old}")
        title = f"meanings of these tokens ({space})"
        image = _draw_cosines(axes[3], units @ units.T, len(units), title)
        figure.colorbar(image, ax=axes[3], label="cosine")
    return figure


def _draw_spectra(axes: Any, role: str, before: RowPicture, after: RowPicture) -> None:
    curves = (
        ("new rows, before", before.new_values, "tab:orange", "--"),
        ("new rows, after", after.new_values, "tab:orange", "-"),
        ("as many old rows at most", after.old_values, "tab:blue", "-"),
    )
    for name, values, color, style in curves:
        # A value that is 0 has no place on a logarithmic axis.
        shown = values.where(values > 0, torch.nan)
        axes.plot(range(1, len(values) + 1), shown.numpy(), style, color=color, label=name)
    axes.set(xlabel="index", ylabel="singular value", title=f"spectrum, {role} rows")
    axes.set_yscale("log")
    axes.legend()


def _draw_cosines(axes: Any, cosines: Tensor, num_new: int, title: str) -> Any:
    image = axes.imshow(cosines.numpy(), vmin=-1.0, vmax=1.0, cmap="RdBu_r")
    if num_new < len(cosines):
        axes.axhline(num_new - 0.5, color="black", linewidth=0.8)
        axes.axvline(num_new - 0.5, color="black", linewidth=0.8)
    axes.set_title(title, fontsize=10)
    return image


def pictures(spectra: Sequence[RowSpectra], places: Tensor) -> dict[str, RowPicture]:
    """The picture of each matrix by its role.

    Args:
        spectra: A measurement of each matrix.
        places: As in `RowPicture.of`.
    """
    return {part.role: RowPicture.of(part, places) for part in spectra}
