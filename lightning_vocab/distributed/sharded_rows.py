"""Split rows of which every rank holds a part: the vocabulary is divided, the width is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.nn import functional as F
from typing_extensions import override

from lightning_vocab.distributed.exchange import RankExchange, averaged, shared, summed
from lightning_vocab.functional.exchange import ELSEWHERE
from lightning_vocab.functional.linear_cross_entropy import RowBlock
from lightning_vocab.rows.split_rows import SplitRows

_Result = TypeVar("_Result")


class ShardedRows(SplitRows):
    """`SplitRows` divided over the ranks of one dimension of a mesh.

    Old, new and padding rows, and their biases, are each cut into equal runs of rows (the last ones
    may be shorter or empty), all in the same way on the same ranks, so that rows and bias, old and
    new, stay one unit. The parameters are DTensors; every rank knows all ids. Each rank of the
    dimension must work on the same batch; over the other dimensions of the mesh the rows are whole,
    and their gradients are averaged.

    A look-up costs one reduction of the looked-up rows ``(batch, time, dim)``. `score` never builds
    logits; `logits` builds all of them on each rank, for text generation and for a model whose own
    loss is used.

    Args:
        rows: The whole rows, the same on every rank; they are not changed.
        mesh: A mesh whose dimensions have names.
        dimension: Name of the dimension over which the rows are divided.

    Example:
        >>> import torch.distributed as dist
        >>> from torch.distributed.device_mesh import init_device_mesh
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> mesh = init_device_mesh("cpu", (1,), mesh_dim_names=("tensor_parallel",))
        >>> old = nn.Parameter(torch.tensor([[1.0], [2.0], [3.0]]))
        >>> whole = SplitRows(old, torch.tensor([[20.0]]), torch.tensor([1]), torch.empty(0, 1))
        >>> rows = ShardedRows(whole, mesh)
        >>> rows.lookup(torch.tensor([0, 1])).flatten().tolist(), rows.old.placements
        ([1.0, 20.0], (Shard(dim=0),))
        >>> dist.destroy_process_group()
    """

    local_columns: Tensor

    def __init__(
        self, rows: SplitRows, mesh: DeviceMesh, dimension: str = "tensor_parallel"
    ) -> None:
        def cut(part: Tensor | None) -> Any:
            if part is None:
                return None
            placed = _cut(part.detach(), mesh, dimension)
            return nn.Parameter(placed, part.requires_grad) if _trains(part) else placed

        super().__init__(
            cut(rows.old),
            cut(rows.new),
            rows.new_ids,
            cut(rows.padding),
            old_bias=cut(rows.old_bias),
            new_bias=cut(rows.new_bias),
            padding_bias=cut(rows.padding_bias),
        )
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(rows.get_parameter(name).requires_grad)
        self.exchange = RankExchange(mesh.get_group(dimension))
        parts = (self.old, self.new, self.padding)
        self._runs = [_run(len(part), mesh, dimension) for part in parts]
        columns = _local_columns([len(part) for part in parts], self._runs)
        self.register_buffer("local_columns", columns.to(rows.new_ids.device), persistent=False)
        assert mesh.mesh_dim_names is not None
        self._copies = [
            RankExchange(mesh.get_group(name))
            for name in mesh.mesh_dim_names
            if name != dimension and mesh[name].size() > 1
        ]

    @override
    def columns(self, ids: Tensor) -> Tensor:
        """Column of each id in this rank's `blocks`, or `ELSEWHERE`; a negative id stays."""
        columns = super().columns(ids)
        return torch.where(columns < 0, columns, self.local_columns[columns.clamp(min=0)])

    @override
    def blocks(self) -> list[RowBlock]:
        """This rank's own rows; a block may be empty."""
        old = RowBlock(self._local(self.old), self._local(self.old_bias))
        if self.shows_base:
            return [old]
        first, stop = self._runs[0]
        here = (self.replaced_ids >= first) & (self.replaced_ids < stop)
        dead = self.replaced_ids[here] - first
        blocks = [
            old._replace(dead=dead if len(dead) else None),
            RowBlock(self._local(self.new), self._local(self.new_bias)),
        ]
        if len(self.padding):
            blocks.append(RowBlock(self._local(self.padding), self._local(self.padding_bias)))
        return blocks

    @override
    def lookup(self, ids: Tensor, padding_idx: int | None = None) -> Tensor:
        """The rows of ``ids`` (any shape), ``(*ids.shape, dim)``, the same on every rank."""
        columns, (first, stop) = self.columns(ids), self._runs[0]
        is_old = ((columns >= 0) & (columns < stop - first)).unsqueeze(-1)
        is_here = padding_idx is not None and first <= padding_idx < stop
        own_padding = padding_idx - first if padding_idx is not None and is_here else None
        own = _looked_up(self._local(self.old), columns, own_padding).masked_fill(~is_old, 0)
        if not self.shows_base:
            behind = torch.cat([self._local(self.new), self._local(self.padding)])
            rows = _looked_up(behind, columns - (stop - first), None)
            own = torch.where((columns >= stop - first).unsqueeze(-1), rows, own)
        return summed(own, self.exchange)

    @override
    def logits(self, hidden: Tensor) -> Tensor:
        """``hidden (..., dim)`` times every row, in order of id: all of them on every rank."""
        hidden = shared(hidden, self.exchange)
        parts = [F.linear(hidden, block.weight, block.bias) for block in self.blocks()]
        num_ids = self.base_rows if self.shows_base else self.num_rows
        columns = self.columns(torch.arange(num_ids, device=hidden.device))
        ids = (columns != ELSEWHERE).nonzero().squeeze(1)
        own = torch.cat(parts, dim=-1).index_select(-1, columns[ids])
        whole = own.new_zeros(*own.shape[:-1], num_ids)
        return summed(whole.index_copy(-1, ids, own), self.exchange)

    @override
    def score(
        self, function: Callable[..., _Result], hidden: Tensor, ids: Tensor, **options: Any
    ) -> _Result:
        """`SplitRows.score` over the rows of all ranks, none of which sees another's."""
        return super().score(function, hidden, ids, exchange=self.exchange, **options)

    def _local(self, part: Tensor | None) -> Any:
        """This rank's rows; their gradient is averaged over the ranks that hold the same ones."""
        if not isinstance(part, DTensor):
            return None
        own: Tensor = part.to_local()
        for copies in self._copies:
            own = averaged(own, copies)
        return own


def _trains(part: Tensor) -> bool:
    """Whether a part is handed to `SplitRows` as a Parameter: it wraps new rows itself."""
    return isinstance(part, nn.Parameter)


def _run(num_rows: int, mesh: DeviceMesh, dimension: str) -> tuple[int, int]:
    """First row of this rank and the first one behind it, as `Shard` divides uneven lengths."""
    length = -(-num_rows // mesh[dimension].size())
    first = min(mesh.get_local_rank(dimension) * length, num_rows)
    return first, min(first + length, num_rows)


def _cut(whole: Tensor, mesh: DeviceMesh, dimension: str) -> DTensor:
    """This rank's run of rows as part of a DTensor; a copy, so that the whole can be freed."""
    assert mesh.mesh_dim_names is not None
    first, stop = _run(len(whole), mesh, dimension)
    return DTensor.from_local(
        whole[first:stop].to(mesh.device_type, copy=True).contiguous(),
        mesh,
        [Shard(0) if name == dimension else Replicate() for name in mesh.mesh_dim_names],
        run_check=False,
        shape=whole.shape,
        stride=whole.contiguous().stride(),
    )


def _local_columns(heights: list[int], runs: list[tuple[int, int]]) -> Tensor:
    """For each column of ``[old | new | padding]`` that of this rank's blocks, or `ELSEWHERE`."""
    columns = torch.full((sum(heights),), ELSEWHERE)
    start, num_own = 0, 0
    for height, (first, stop) in zip(heights, runs, strict=True):
        own = torch.arange(num_own, num_own + stop - first)
        columns[start + first : start + stop] = own
        start, num_own = start + height, num_own + len(own)
    return columns


def _looked_up(rows: Tensor, index: Tensor, padding_idx: int | None) -> Tensor:
    """Rows at an index, any row where the index is out of range, ``(*index.shape, dim)``."""
    if not len(rows):
        # The empty part still gets its empty gradient: ranks must agree on what has one.
        return rows.sum(0).expand(*index.shape, -1)
    outside = (index < 0) | (index >= len(rows))
    return F.embedding(index.masked_fill(outside, 0), rows, padding_idx)
