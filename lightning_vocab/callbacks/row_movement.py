"""How much the gradient of rows is and how far a step moves them, of new rows and of old."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from lightning_vocab.rows import SplitRows


class RowMovement:
    """Gradient norms before an optimizer step, and how far the rows have moved after it.

    Memory during a measured step: a copy of the new rows and of the sampled old rows.

    Args:
        rows: The split rows of the embedding and, if untied, of the head.
        num_old_rows: Old rows that are watched, at most: evenly spread over the matrix.
    """

    def __init__(self, rows: Sequence[SplitRows], num_old_rows: int) -> None:
        self._rows = rows
        height = rows[0].base_rows
        step = -(-height // num_old_rows)
        self._sample = torch.arange(0, height, step, device=rows[0].old.device)
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._gradients: dict[str, float] = {}

    @property
    def is_pending(self) -> bool:
        """Whether `before_step` was called and `after_step` was not."""
        return bool(self._kept)

    @torch.no_grad()
    def before_step(self) -> None:
        """Measure the gradients and keep the rows as they are now."""
        self._gradients = {
            "gradient_norm_new": _norm(part.new.grad for part in self._rows),
            "gradient_norm_old": _norm(part.old.grad for part in self._rows),
        }
        self._kept = [(part.new.clone(), part.old[self._sample]) for part in self._rows]

    @torch.no_grad()
    def after_step(self) -> dict[str, float]:
        """The gradients' norms, and the root mean square of how far a row has moved."""
        pairs = list(zip(self._rows, self._kept, strict=True))
        new = [part.new - before for part, (before, _) in pairs]
        old = [part.old[self._sample] - before for part, (_, before) in pairs]
        self._kept = []
        return {
            **self._gradients,
            "update_norm_new": _norm(new) / sum(map(len, new)) ** 0.5,
            "update_norm_old": _norm(old) / sum(map(len, old)) ** 0.5,
        }


def _norm(parts: Iterable[Tensor | None]) -> float:
    """Euclidean norm of all parts together; None has none."""
    # Summed in float32 without a copy: the gradient of old rows is as large as the matrix.
    norms = [
        torch.linalg.vector_norm(part, dtype=torch.promote_types(part.dtype, torch.float32))
        for part in parts
        if part is not None
    ]
    return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0
