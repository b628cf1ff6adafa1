"""A picture of the new rows beside old ones: singular spectra and pairwise cosines."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_vocab.watched_rows import RowSpectra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN_ROWS = 50


def can_draw() -> bool:
    """Whether matplotlib is installed (``pip install lightning-vocab[plots]``)."""
    return find_spec("matplotlib") is not None


def draw_spectra(spectra: RowSpectra) -> Figure:
    """Singular values of new and old rows, and the cosines of the first 50 of each.

    The figure belongs to no window and to no pyplot state, so nothing has to be closed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, values in (("new", spectra.new_values), ("old", spectra.old_values)):
        left.plot(range(1, len(values) + 1), values.cpu().numpy(), label=f"{name} rows")
    left.set(xlabel="index", ylabel="singular value", title=f"spectrum, {spectra.role}")
    left.legend()
    cosines, num_new = shown_cosines(spectra)
    image = right.imshow(cosines.cpu().numpy(), vmin=-1.0, vmax=1.0, cmap="RdBu_r")
    right.axhline(num_new - 0.5, color="black", linewidth=0.5)
    right.axvline(num_new - 0.5, color="black", linewidth=0.5)
    right.set(title=f"cosines: {num_new} new rows, then {len(cosines) - num_new} old")
    figure.colorbar(image, ax=right)
    return figure


def shown_cosines(spectra: RowSpectra) -> tuple[Tensor, int]:
    """Cosines between the first new rows and the first sampled old rows, and how many are new."""
    new, old = spectra.new[:_SHOWN_ROWS], spectra.old[:_SHOWN_ROWS]
    units = F.normalize(torch.cat([new, old]).float(), dim=1)
    return units @ units.T, len(new)
