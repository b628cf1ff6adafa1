"""Different methods for different kinds of token, and for the two ends of a model."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from lightning_vocab.initializers.base import Initializer, RowContext


class Mixture(Initializer):
    """A method for each kind of new token.

    Words of a language are well made of their pieces; the pieces of ``<|tool|>`` mean nothing. Each
    method sees the tokens of its kind alone. Methods that draw numbers draw them in the order text,
    special, slot.

    Args:
        text: For tokens that merges lead to.
        special: For protocol tokens; ``text`` if not given.
        slot: For reused slots; ``special`` if not given.
    """

    def __init__(
        self,
        text: Initializer,
        special: Initializer | None = None,
        slot: Initializer | None = None,
    ) -> None:
        self.text = text
        self.special = text if special is None else special
        self.slot = self.special if slot is None else slot
        self._remarks: list[str] = []

    @override
    def rows(self, context: RowContext) -> tuple[Tensor, Tensor | None]:
        """Input rows and, if untied, output rows ``(num_new, dim)``."""
        self._remarks, made = [], []
        for places, method, part in self._parts(context):
            made.append((places, method.rows(part)))
            self._remarks += method.remarks()  # at once: one method may serve two kinds
        inputs = _in_order([(places, rows[0]) for places, rows in made])
        outputs = [(places, rows[1]) for places, rows in made if rows[1] is not None]
        return inputs, _in_order(outputs) if outputs else None

    @override
    def remarks(self) -> list[str]:
        """What the methods said of their kinds at the last call."""
        return self._remarks

    @override
    def bias(self, context: RowContext) -> Tensor:
        """Head bias of the new rows ``(num_new,)``, each by the method of its kind."""
        parts = self._parts(context)
        return _in_order([(places, method.bias(part)) for places, method, part in parts])

    def _parts(self, context: RowContext) -> list[tuple[list[int], Initializer, RowContext]]:
        methods = {"text": self.text, "special": self.special, "slot": self.slot}
        tokens = context.expansion.tokens
        parts = []
        for kind, method in methods.items():
            places = [place for place, token in enumerate(tokens) if token.kind == kind]
            if places:
                parts.append((places, method, context.only(places)))
        return parts


class Separate(Initializer):
    """One method for the input rows, another for the output rows and their bias.

    Args:
        inputs: Makes the input rows.
        outputs: Makes the output rows and, where the head has one, the bias.
    """

    def __init__(self, inputs: Initializer, outputs: Initializer) -> None:
        self.inputs = inputs
        self.outputs = outputs

    @override
    def rows(self, context: RowContext) -> tuple[Tensor, Tensor | None]:
        """Input rows and output rows ``(num_new, dim)``.

        Raises:
            ValueError: If the model is tied: one row serves both ends.
        """
        if context.output_rows is None:
            raise ValueError(
                "Separate makes input and output rows by two methods, but this model is tied: one "
                "row serves both ends. Give one method alone."
            )
        return self.inputs.rows(context)[0], self.outputs.rows(context)[1]

    @override
    def remarks(self) -> list[str]:
        """What both methods say of the last call."""
        return [*self.inputs.remarks(), *self.outputs.remarks()]

    @override
    def bias(self, context: RowContext) -> Tensor:
        """Head bias of the new rows ``(num_new,)``, by the method of the output rows."""
        return self.outputs.bias(context)


def _in_order(parts: list[tuple[list[int], Tensor]]) -> Tensor:
    """Rows of all parts, each at its place."""
    first = parts[0][1]
    merged = first.new_empty(sum(len(places) for places, _ in parts), *first.shape[1:])
    for places, rows in parts:
        merged[torch.tensor(places, device=merged.device)] = rows.to(merged)
    return merged
