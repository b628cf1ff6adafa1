"""Old rows and new rows as two Parameters behind one embedding and one head.

A frozen old Parameter has no gradient and no optimizer state, so neither weight decay nor momentum
can move it; a gradient mask on one big matrix cannot promise that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SplitRows(nn.Module):
    """The rows of one matrix in three parts: old, new and padding.

    The embedding and the head of a tied model hold the *same* `SplitRows` object.

    Args:
        old: The base matrix itself, not a copy, ``(base_rows, dim)``.
        new: Rows of the new tokens in ascending order of id, ``(num_new, dim)``.
        new_ids: Ids of the new rows, ascending, ``(num_new,)``. They may lie behind the base
            matrix, in its padded rows, or on slots in its middle.
        padding: Rows behind the base matrix that have no token, ``(num_padding, dim)``. They never
            train.
        old_bias: Bias of the old rows of a head, ``(base_rows,)``.
        new_bias: Bias of the new rows, ``(num_new,)``.
        padding_bias: Bias of the padding rows, ``(num_padding,)``.

    Raises:
        ValueError: If there is no new row, or the parts do not fit together.
    """

    new_ids: Tensor
    padding: Tensor
    padding_bias: Tensor | None
    position: Tensor
    replaced_ids: Tensor

    def __init__(
        self,
        old: nn.Parameter,
        new: Tensor,
        new_ids: Tensor,
        padding: Tensor,
        *,
        old_bias: nn.Parameter | None = None,
        new_bias: Tensor | None = None,
        padding_bias: Tensor | None = None,
    ) -> None:
        super().__init__()
        num_rows = _num_rows(old, new, new_ids, padding)
        self.old = old
        self.new = nn.Parameter(new)
        self.old_bias = old_bias
        self.new_bias = None if new_bias is None else nn.Parameter(new_bias)
        self.register_buffer("new_ids", new_ids)
        self.register_buffer("padding", padding)
        self.register_buffer("padding_bias", padding_bias)
        # Both follow from new_ids, so a checkpoint need not carry them.
        position = _column_of_each_id(new_ids, base_rows=len(old), num_rows=num_rows)
        self.register_buffer("position", position, persistent=False)
        self.register_buffer("replaced_ids", new_ids[new_ids < len(old)], persistent=False)
        self.is_appended = bool(torch.equal(position, torch.arange(num_rows, device=old.device)))
        self.shows_base = False

    @property
    def base_rows(self) -> int:
        """Height of the base matrix."""
        return self.old.shape[0]

    @property
    def num_rows(self) -> int:
        """Height of the matrix after expansion."""
        return self.position.shape[0]

    def lookup(self, ids: Tensor) -> Tensor:
        """The rows of ``ids`` (any shape), ``(*ids.shape, dim)``."""
        if self.shows_base:
            return F.embedding(ids, self.old)
        extra = self.position[ids] - self.base_rows
        is_extra = extra >= 0
        old = F.embedding(ids.masked_fill(is_extra, 0), self.old)
        new = F.embedding(extra.clamp(min=0), self._behind(self.new, self.padding))
        return torch.where(is_extra.unsqueeze(-1), new, old)

    def logits(self, hidden: Tensor) -> Tensor:
        """``hidden (..., dim)`` times every row, plus bias, in order of id: ``(..., num_rows)``."""
        old = F.linear(hidden, self.old, self.old_bias)
        if self.shows_base:
            return old
        parts = [old, F.linear(hidden, self.new, self.new_bias)]
        if len(self.padding):
            parts.append(F.linear(hidden, self.padding, self.padding_bias))
        columns = torch.cat(parts, dim=-1)
        return columns if self.is_appended else columns.index_select(-1, self.position)

    def merged(self) -> tuple[Tensor, Tensor | None]:
        """One matrix in order of id ``(num_rows, dim)`` and its bias ``(num_rows,)``: a copy."""
        matrix = torch.cat([self.old, self.new, self.padding])[self.position].detach()
        if self.old_bias is None or self.new_bias is None or self.padding_bias is None:
            return matrix, None
        bias = torch.cat([self.old_bias, self.new_bias, self.padding_bias])[self.position]
        return matrix, bias.detach()

    @staticmethod
    def _behind(new: Tensor, padding: Tensor) -> Tensor:
        return torch.cat([new, padding]) if len(padding) else new


class SplitEmbedding(nn.Module):
    """Input embedding over `SplitRows`, with the base's scale where it has one (Gemma).

    Args:
        rows: The rows; the head's own object where the model is tied.
        scale: Factor of the embedding's output: a number, or the base's scalar buffer.
    """

    def __init__(self, rows: SplitRows, scale: Tensor | float | None = None) -> None:
        super().__init__()
        self.rows = rows
        is_tensor = isinstance(scale, Tensor)
        self.register_buffer("scale_buffer", scale if is_tensor else None, persistent=False)
        self.scale_number = None if is_tensor else scale

    @property
    def num_embeddings(self) -> int:
        """Height of the matrix, as `torch.nn.Embedding` names it."""
        return self.rows.num_rows

    @property
    def embedding_dim(self) -> int:
        """Width of the matrix, as `torch.nn.Embedding` names it."""
        return self.rows.old.shape[1]

    def forward(self, input: Tensor) -> Tensor:
        """Embed token ids ``(batch, time)``: ``(batch, time, dim)``."""
        embedded = self.rows.lookup(input)
        if self.scale_buffer is not None:
            return embedded * self.scale_buffer.to(embedded.dtype)
        return embedded if self.scale_number is None else embedded * self.scale_number


class SplitHead(nn.Module):
    """Output projection over `SplitRows`.

    Args:
        rows: The rows; the embedding's own object where the model is tied.
    """

    def __init__(self, rows: SplitRows) -> None:
        super().__init__()
        self.rows = rows

    @property
    def out_features(self) -> int:
        """Number of logits, as `torch.nn.Linear` names it."""
        return self.rows.num_rows

    def forward(self, input: Tensor) -> Tensor:
        """Logits ``(..., num_rows)`` of hidden states ``(..., dim)``, in order of token id."""
        return self.rows.logits(input)


@contextmanager
def base_view(module: nn.Module) -> Iterator[None]:
    """Show the model as it was before expansion: only old rows are looked up and scored.

    Token ids must be the base tokenizer's. Nothing is copied; the former view returns at the end.
    """
    splits = [part for part in module.modules() if isinstance(part, SplitRows)]
    before = [part.shows_base for part in splits]
    for part in splits:
        part.shows_base = True
    try:
        yield
    finally:
        for part, shown in zip(splits, before, strict=True):
            part.shows_base = shown


def _num_rows(old: Tensor, new: Tensor, new_ids: Tensor, padding: Tensor) -> int:
    if len(new) == 0 or len(new) != len(new_ids):
        raise ValueError(
            f"A split needs one row for each new id and at least one: got {len(new)} rows "
            f"for {len(new_ids)} ids."
        )
    if (new_ids[1:] <= new_ids[:-1]).any() or new_ids[0] < 0:
        raise ValueError("Ids of new rows must be ascending, distinct and not negative.")
    behind = int((new_ids >= len(old)).sum())
    num_rows = len(old) + behind + len(padding)
    if int(new_ids[-1]) >= num_rows:
        raise ValueError(
            f"Id {int(new_ids[-1])} has no row: {len(old)} old, {behind} appended and "
            f"{len(padding)} padding rows make {num_rows}."
        )
    return num_rows


def _column_of_each_id(new_ids: Tensor, *, base_rows: int, num_rows: int) -> Tensor:
    """Column of every id in ``[old | new | padding]``, ``(num_rows,)``."""
    device = new_ids.device
    position = torch.arange(num_rows, device=device)
    is_padding = torch.ones(num_rows, dtype=torch.bool, device=device)
    is_padding[:base_rows] = False
    is_padding[new_ids] = False
    position[new_ids] = base_rows + torch.arange(len(new_ids), device=device)
    first = base_rows + len(new_ids)
    count = int(is_padding.sum())
    position[is_padding] = first + torch.arange(count, device=device)
    return position
