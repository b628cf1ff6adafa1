"""The rows of one matrix as three parts, of which only two are Parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from lightning_vocab.functional.linear_cross_entropy import RowBlock

_Result = TypeVar("_Result")


class SplitRows(nn.Module):
    """The rows of one matrix in three parts: old, new and padding.

    The embedding and the head of a tied model hold the *same* `SplitRows` object.

    A checkpoint carries the ids of the new rows; loading it into rows of other ids is an error.

    New rows and their bias are stored in float32 beside old rows of half precision, and stay wide
    when the model is cast (``module.bfloat16()``, the Trainer's ``bf16-true``): half precision
    would round most steps of their optimizer away. The model sees them rounded to the dtype of the
    old rows, as they are exported, and their gradient is summed in float32.

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

    Example:
        >>> old = torch.nn.Parameter(torch.tensor([[1.0], [2.0], [3.0]]))
        >>> ids = torch.tensor([1, 3])  # a slot in the middle, and one row behind the base
        >>> rows = SplitRows(old, torch.tensor([[20.0], [40.0]]), ids, torch.empty(0, 1))
        >>> rows.merged()[0].flatten().tolist()
        [1.0, 20.0, 3.0, 40.0]
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
        _check_biases((old, new, padding), (old_bias, new_bias, padding_bias))
        self.old = old
        # Contiguous: torch's fused optimizers on a CPU take that for granted.
        self.new = nn.Parameter(_at_least_float32(new).contiguous())
        self.old_bias = old_bias
        self.new_bias = None if new_bias is None else nn.Parameter(_at_least_float32(new_bias))
        self.register_buffer("new_ids", new_ids)
        self.register_buffer("padding", padding)
        self.register_buffer("padding_bias", padding_bias)
        # Both follow from new_ids, so a checkpoint need not carry them.
        position = _column_of_each_id(new_ids, base_rows=len(old), num_rows=num_rows)
        self.register_buffer("position", position, persistent=False)
        self.register_buffer("replaced_ids", new_ids[new_ids < len(old)], persistent=False)
        in_order = torch.arange(num_rows, device=new_ids.device)
        self.is_appended = bool(torch.equal(position, in_order))
        self.shows_base = False

    @property
    def base_rows(self) -> int:
        """Height of the base matrix."""
        return self.old.shape[0]

    @property
    def num_rows(self) -> int:
        """Height of the matrix after expansion."""
        return self.position.shape[0]

    def lookup(self, ids: Tensor, padding_idx: int | None = None) -> Tensor:
        """The rows of ``ids`` (any shape), ``(*ids.shape, dim)``.

        Args:
            ids: Token ids, int64.
            padding_idx: Id of an old row that gets no gradient, as in `torch.nn.Embedding`.
        """
        if self.shows_base:
            return F.embedding(ids, self.old, padding_idx)
        extra = self.columns(ids) - self.base_rows
        is_extra = extra >= 0
        old = F.embedding(ids.masked_fill(is_extra, 0), self.old, padding_idx)
        behind = torch.cat([self.new, self.padding]) if len(self.padding) else self.new
        new = F.embedding(extra.clamp(min=0), behind).to(old.dtype)
        return torch.where(is_extra.unsqueeze(-1), new, old)

    def logits(self, hidden: Tensor) -> Tensor:
        """``hidden (..., dim)`` times every row, plus bias, in order of id: ``(..., num_rows)``."""
        # The old rows are multiplied alone: their logits are the base's, bit for bit.
        parts = [_product(hidden, block, self.old.dtype) for block in self.blocks()]
        columns = torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]
        if self.shows_base or self.is_appended:
            return columns
        return columns.index_select(-1, self.position)

    def blocks(self) -> list[RowBlock]:
        """The rows as blocks for `linear_cross_entropy`: old, new, and padding where there is any.

        Old rows that a new token has replaced are dead: they take no part in the softmax. Under
        `base_view` there is the old block alone, and nothing in it is dead.
        """
        if self.shows_base:
            return [RowBlock(self.old, self.old_bias)]
        dead = self.replaced_ids if len(self.replaced_ids) else None
        blocks = [RowBlock(self.old, self.old_bias, dead), RowBlock(self.new, self.new_bias)]
        if len(self.padding):
            blocks.append(RowBlock(self.padding, self.padding_bias))
        return blocks

    def columns(self, ids: Tensor) -> Tensor:
        """Column of each id in the concatenation of `blocks`; a negative id (ignored) stays."""
        if self.shows_base or self.is_appended:
            return ids
        return torch.where(ids < 0, ids, self.position[ids.clamp(min=0)])

    def score(
        self, function: Callable[..., _Result], hidden: Tensor, ids: Tensor, **options: Any
    ) -> _Result:
        """Call a function of `linear_cross_entropy`'s kind on these rows.

        The rows are read inside of this method and not handed out, so that they may be divided
        among ranks outside of it.

        Args:
            function: Called with ``hidden``, the columns of the targets, the blocks, and options.
            hidden: Hidden states, ``(..., dim)``.
            ids: Target ids, ``(...)``; a negative id (ignored) stays as it is.
            options: Handed to the function.
        """
        return function(hidden, self.columns(ids), self.blocks(), **options)

    @torch.no_grad()
    def merged(self) -> tuple[Tensor, Tensor | None]:
        """One matrix in order of id ``(num_rows, dim)`` and its bias ``(num_rows,)``: a copy.

        Both have the dtype of the old rows.
        """
        matrix = self._merge(self.old, self.new, self.padding)
        if self.old_bias is None or self.new_bias is None or self.padding_bias is None:
            return matrix, None
        return matrix, self._merge(self.old_bias, self.new_bias, self.padding_bias)

    def _merge(self, old: Tensor, new: Tensor, padding: Tensor) -> Tensor:
        merged = old.new_empty((self.num_rows, *old.shape[1:]))
        merged[: self.base_rows] = old
        merged[self.new_ids] = new.to(old.dtype)
        merged[self.position >= self.base_rows + len(new)] = padding
        return merged

    @override
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SplitRows:
        """Move or cast all parts, but the new ones never below float32."""
        new = [part for part in (self.new, self.new_bias) if part is not None]
        wide = [*new, *(part.grad for part in new if part.grad is not None)]

        def applied(tensor: Tensor) -> Tensor:
            made = fn(tensor)
            if made.dtype.itemsize < 4 and any(tensor is part for part in wide):
                return tensor.to(made.device)
            return made

        super()._apply(applied, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return self

    @override
    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        error_msgs: list[str] = args[-1]
        ids = state_dict.get(f"{prefix}new_ids")
        if ids is not None and ids.tolist() != self.new_ids.tolist():
            error_msgs.append(
                f"{prefix}new_ids: expected the state of {len(self.new_ids)} new rows "
                f"{_shown(self.new_ids)}, got {len(ids)} {_shown(ids)}: the checkpoint belongs to "
                "another vocabulary. Expand the model with the expansion that it was trained with."
            )
            return
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _at_least_float32(rows: Tensor) -> Tensor:
    return rows.to(torch.promote_types(rows.dtype, torch.float32))


def _product(hidden: Tensor, block: RowBlock, dtype: torch.dtype) -> Tensor:
    bias = None if block.bias is None else block.bias.to(dtype)
    return F.linear(hidden, block.weight.to(dtype), bias)


def _shown(ids: Tensor) -> str:
    shown = ", ".join(str(id) for id in ids[:4].tolist())
    return f"(ids {shown}, …)" if len(ids) > 4 else f"(ids {shown})"


def _num_rows(old: Tensor, new: Tensor, new_ids: Tensor, padding: Tensor) -> int:
    if len(new) == 0 or len(new) != len(new_ids):
        raise ValueError(
            f"A split needs one row for each new id and at least one: got {len(new)} rows "
            f"for {len(new_ids)} ids."
        )
    if not old.shape[1:] == new.shape[1:] == padding.shape[1:]:
        raise ValueError(
            f"Old, new and padding rows need one width: got shapes {tuple(old.shape)}, "
            f"{tuple(new.shape)} and {tuple(padding.shape)}."
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


def _check_biases(rows: tuple[Tensor, ...], biases: tuple[Tensor | None, ...]) -> None:
    expected = [len(part) for part in rows]
    came = [None if bias is None else len(bias) for bias in biases]
    if came != expected and came != [None, None, None]:
        raise ValueError(
            f"Old, new and padding rows need a bias each or none at all: expected lengths "
            f"{expected}, got {came}."
        )


def _column_of_each_id(new_ids: Tensor, *, base_rows: int, num_rows: int) -> Tensor:
    """Column of every id in ``[old | new | padding]``, ``(num_rows,)``."""
    device = new_ids.device
    position = torch.arange(num_rows, device=device)
    is_padding = torch.ones(num_rows, dtype=torch.bool, device=device)
    is_padding[:base_rows] = False
    is_padding[new_ids] = False
    position[new_ids] = base_rows + torch.arange(len(new_ids), device=device)
    first = base_rows + len(new_ids)
    position[is_padding] = first + torch.arange(int(is_padding.sum()), device=device)
    return position
