"""Random rows that no hidden state can prefer to all base rows."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from lightning_vocab.initializers.base import RowContext
from lightning_vocab.initializers.combined import CombinedRows, RowWeights


class ConvexHull(CombinedRows):
    """Random convex combinations of ``k`` base rows, the same at both ends.

    ``row = sum(w_j * rows[id_j])`` with ``k`` ids drawn from the base rows that have a token and
    weights drawn evenly from all that are positive and sum to 1. The logit of such a row lies
    between those of its base rows, whatever the hidden state: greedy decoding goes on as before
    (Mundra et al., "An Empirical Comparison of Vocabulary Expansion and Initialization Approaches
    for Language Models", arXiv 2407.05841, which asks this of an initialization; biases are
    combined by the same weights, so it holds with them). The rows spread around the mean by
    ``sqrt(2 / (k + 1))`` of the base rows' own standard deviation.

    Cost: ``k`` rows are read for each new one. Memory: these base rows in float32, each once.

    Args:
        k: Base rows that make a row. 1 copies rows; many make rows near the mean. The default
            spreads them like the default noise of `Mean`.

    Raises:
        ValueError: If ``k`` is not positive.
    """

    def __init__(self, k: int = 20) -> None:
        super().__init__(fallback=None)
        if k < 1:
            raise ValueError(f"k must be 1 or more: got {k}.")
        self.k = k
        # Rows and bias of the same tokens must get the same weights, which are drawn once.
        self._drawn: dict[tuple[int, ...], RowWeights] = {}

    @override
    def rows(self, context: RowContext) -> tuple[Tensor, Tensor | None]:
        """Input rows and, if untied, output rows ``(num_new, dim)``."""
        self._drawn.pop(context.expansion.new_ids, None)
        return super().rows(context)

    @override
    def weights(self, context: RowContext) -> RowWeights:
        """The base rows of each new row and their weights.

        Weights that `rows` has drawn serve for the bias of the same tokens as well.
        """
        tokens = context.expansion.new_ids
        if tokens in self._drawn:
            return self._drawn.pop(tokens)
        drawn = self._draw(context)
        if context.output_bias is not None:
            self._drawn[tokens] = drawn
        return drawn

    def _draw(self, context: RowContext) -> RowWeights:
        shape, generator = (context.num_new, self.k), context.generator
        device = generator.device  # the device of the model does not change what is drawn
        places = torch.randint(
            len(context.base_ids), shape, generator=generator, device=device
        ).flatten()
        # Exponential numbers over their sum are even on the simplex (Dirichlet of ones).
        drawn = torch.empty(shape, dtype=torch.float64, device=device)
        drawn.exponential_(generator=generator)
        weights = drawn / drawn.sum(dim=1, keepdim=True)
        base_ids = context.base_ids
        return RowWeights(
            is_covered=torch.ones(context.num_new, dtype=torch.bool, device=base_ids.device),
            ids=base_ids[places.to(base_ids.device)],
            weights=weights.flatten().to(base_ids.device),
            counts=torch.full((context.num_new,), self.k, device=base_ids.device),
        )
