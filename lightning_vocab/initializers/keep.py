"""Rows that are there already."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from lightning_vocab.initializers.base import Initializer, RowContext, required_bias


class Keep(Initializer):
    """The rows that the model has for the new tokens: to go on where an earlier run ended.

    For a base that was expanded before, such as the folder that a grounding run wrote: its matrices
    have the new rows already, trained. They are split off as they are.
    """

    @override
    def rows(self, context: RowContext) -> tuple[Tensor, Tensor | None]:
        """Input rows and, if untied, output rows ``(num_new, dim)``: those of the base.

        Raises:
            ValueError: If the base has no row for a new token.
        """
        ids = _ids(context, len(context.input_rows))
        inputs = _taken(context.input_rows, ids)
        outputs = None if context.output_rows is None else _taken(context.output_rows, ids)
        return inputs, outputs

    @override
    def bias(self, context: RowContext) -> Tensor:
        """Head bias of the new rows ``(num_new,)``: the base's."""
        bias = required_bias(context)
        return _taken(bias, _ids(context, len(bias)))


def _taken(rows: Tensor, ids: Tensor) -> Tensor:
    return rows[ids.to(rows.device)].to(torch.promote_types(rows.dtype, torch.float32))


def _ids(context: RowContext, num_rows: int) -> Tensor:
    ids = context.expansion.new_ids
    if missing := [id for id in ids if id >= num_rows]:
        raise ValueError(
            f"Keep takes over rows that exist, but the base has {num_rows} rows and the expansion "
            f"{len(missing)} new tokens beyond them (from id {missing[0]}): it was not expanded "
            "yet. Use another initializer, or give the expanded model as the base."
        )
    return torch.tensor(ids, dtype=torch.long)
