"""Which new tokens a batch holds, and whether the model answers with them where they are due."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lightning_vocab.data.rows import IGNORED
from lightning_vocab.functional.block_shares import BlockShares
from lightning_vocab.rows import SplitRows


class Adoption:
    """Sums of each source: positions, new targets, those answered with a new token, and mass."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, source: str, rows: SplitRows, shares: BlockShares, labels: Tensor) -> None:
        """Count a batch.

        Args:
            source: Name of the source.
            rows: The rows of the head.
            shares: What the model makes of the batch, ``(batch, time - 1)``.
            labels: Its labels, not shifted, ``(batch, time)``.
        """
        targets = labels[:, 1:]
        is_scored = targets != IGNORED
        first, last = rows.base_rows, rows.base_rows + len(rows.new)
        columns = rows.columns(targets)
        is_new = is_scored & (columns >= first) & (columns < last)
        is_best = (shares.best >= first) & (shares.best < last)
        sums = [is_scored.sum(), is_new.sum(), (is_new & is_best).sum()]
        mass = shares.mass[..., 1].where(is_scored, 0).sum(dtype=torch.float64)
        found = torch.stack([*(each.double() for each in sums), mass])
        self._sums[source] = self._sums.get(source, 0) + found

    def figures(self, summed: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Adoption, mass and share of each source; without those that nothing was counted for.

        Args:
            summed: Adds up the sums of all ranks.
        """
        figures: dict[str, float] = {}
        for source, own in self._sums.items():
            scored, new, adopted, mass = summed(own).tolist()
            if scored:
                figures[f"new_token_mass/{source}"] = mass / scored
                figures[f"new_token_share/{source}"] = new / scored
            if new:
                figures[f"adoption/{source}"] = adopted / new
        return figures


def is_in_batch(rows: SplitRows, batch: Mapping[str, Tensor]) -> Tensor:
    """Whether each new token stands in a batch, ``(num_new,)``; the device is not waited for.

    Args:
        rows: The rows of the embedding.
        batch: ``input_ids`` and ``labels``, ``(batch, time)``.
    """
    ids, labels = batch["input_ids"], batch["labels"]
    is_here = torch.zeros(rows.num_rows, dtype=torch.bool, device=ids.device)
    is_here[ids] = True
    is_here[labels.where(labels != IGNORED, ids)] = True
    return is_here[rows.new_ids]
