"""What a model makes of the products of hidden states and rows."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class LogitShape(NamedTuple):
    """What a model makes of its logits: ``softcap * tanh(scale * logits / softcap)``.

    Args:
        scale: Factor of the logits, applied before the cap.
        softcap: Bound of the logits by tanh; None for none.
    """

    scale: float = 1.0
    softcap: float | None = None

    def apply(self, logits: Tensor, dead: Tensor | None, *, needs_slope: bool) -> Tensor | None:
        """Shape the logits in place; return the cap's derivative if there is a cap and a need.

        Args:
            logits: Products of positions and rows ``(positions, rows)``.
            dead: Columns whose logit becomes minus infinity.
            needs_slope: Whether a gradient is wanted.
        """
        if self.scale != 1.0:
            logits.mul_(self.scale)
        slope = None
        if self.softcap is not None:
            logits.div_(self.softcap).tanh_()
            slope = 1 - logits.square() if needs_slope else None
            logits.mul_(self.softcap)
        if dead is not None:
            logits.index_fill_(1, dead, float("-inf"))
        return slope

    def to_products(self, error: Tensor, slope: Tensor | None) -> Tensor:
        """Turn a derivative by the logits into one by the products, in place."""
        if slope is not None:
            error.mul_(slope)
        return error.mul_(self.scale) if self.scale != 1.0 else error

    def slope_at(self, logits: Tensor) -> Tensor | float:
        """Derivative of the logits by the products, where the shaped logits are known."""
        if self.softcap is None:
            return self.scale
        return (1 - (logits / self.softcap).square()) * self.scale
