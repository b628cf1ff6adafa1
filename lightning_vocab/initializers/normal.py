"""Random rows, as a model gets them when nothing is known."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from lightning_vocab.initializers.base import Initializer, RowContext, random_rows
from lightning_vocab.initializers.moments import standard_deviation


class Normal(Initializer):
    """Every entry is drawn from N(0, std²): the baseline that the other initializers must beat.

    Logits of such rows lie near 0. Where the base's logits are mostly negative, the new tokens take
    nearly all probability until they are trained (Hewitt, "Initializing New Word Embeddings for
    Pretrained Language Models", 2021).

    Args:
        std: Standard deviation of the entries. None takes the standard deviation of all entries of
            the base rows that have a token, for input and output rows each their own.

    Raises:
        ValueError: If ``std`` is not positive.
    """

    def __init__(self, std: float | None = None) -> None:
        if std is not None and not std > 0:
            raise ValueError(f"std must be positive, or None for the base's own: got {std}.")
        self.std = std

    @override
    def rows(self, context: RowContext) -> tuple[Tensor, Tensor | None]:
        """Input rows and, if untied, output rows ``(num_new, dim)``, drawn one after the other."""
        inputs = self._drawn(context, context.input_rows)
        if context.output_rows is None:
            return inputs, None
        return inputs, self._drawn(context, context.output_rows)

    def _drawn(self, context: RowContext, rows: Tensor) -> Tensor:
        std = standard_deviation(rows, context.base_ids) if self.std is None else self.std
        return random_rows(context).to(rows.device) * std
