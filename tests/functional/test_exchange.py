"""Rows that are shared out among ranks, played by threads: the exchange is a barrier and a sum."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_vocab.functional import RowBlock, linear_cross_entropy, token_nats
from lightning_vocab.functional.exchange import ELSEWHERE, Exchange
from tests.functional.test_linear_cross_entropy import OPTIONS, make_inputs


class Meeting:
    """What the threads lay on one table."""

    def __init__(self, size: int) -> None:
        self.barrier = Barrier(size, timeout=20)
        self.table: dict[int, Tensor] = {}

    def reduce(self, rank: int, values: Tensor, how: Callable[[Tensor], Tensor]) -> Tensor:
        self.table[rank] = values
        self.barrier.wait()
        result = how(torch.stack([self.table[each] for each in sorted(self.table)]))
        self.barrier.wait()
        return result


class Seat:
    def __init__(self, meeting: Meeting, rank: int) -> None:
        self.meeting, self.rank = meeting, rank

    def maximum(self, values: Tensor) -> Tensor:
        return self.meeting.reduce(self.rank, values, lambda each: each.amax(0))

    def total(self, values: Tensor) -> Tensor:
        return self.meeting.reduce(self.rank, values, lambda each: each.sum(0))


def on_ranks(size: int, work: Callable[[int, Exchange], Any]) -> list[Any]:
    meeting = Meeting(size)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: work(rank, Seat(meeting, rank)), range(size)))


def shard(block: RowBlock, rank: int, size: int) -> RowBlock:
    """The rows of one rank; the last ranks may have none."""
    height = -(-len(block.weight) // size)
    first, last = min(rank * height, len(block.weight)), (rank + 1) * height
    dead = block.dead
    if dead is not None:
        dead = dead[(dead >= first) & (dead < last)] - first
    bias = None if block.bias is None else block.bias[first:last]
    return RowBlock(block.weight[first:last], bias, dead)


def local_columns(targets: Tensor, blocks: list[RowBlock], rank: int, size: int) -> Tensor:
    local = torch.where(targets < 0, targets, torch.full_like(targets, ELSEWHERE))
    first_here = first = 0
    for block in blocks:
        height = -(-len(block.weight) // size)
        low = first + min(rank * height, len(block.weight))
        rows = len(shard(block, rank, size).weight)
        is_here = (targets >= low) & (targets < low + rows)
        local = torch.where(is_here, targets - low + first_here, local)
        first, first_here = first + len(block.weight), first_here + rows
    return local


@pytest.mark.parametrize("size", [2, 4, 12], ids="{} ranks".format)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("frozen", [(), (0, 3)], ids=["all rows train", "two blocks are frozen"])
def test_shared_out_rows_give_the_loss_and_gradients_of_whole_ones(
    size: int, options: dict[str, Any], frozen: tuple[int, ...]
) -> None:
    hidden, targets, blocks = make_inputs()
    for index in frozen:
        for leaf in (blocks[index].weight, blocks[index].bias):
            assert leaf is not None
            leaf.requires_grad_(False)
    whole = linear_cross_entropy(hidden, targets, blocks, chunk_size=4, **options)
    rows = [leaf for block in blocks for leaf in (block.weight, block.bias) if leaf is not None]
    leaves = [leaf for leaf in rows if leaf.requires_grad]
    expected = torch.autograd.grad(whole, [hidden, *leaves])
    nats = token_nats(hidden, targets, blocks, **options)

    def work(rank: int, exchange: Exchange) -> tuple[Tensor, ...]:
        own = [shard(block, rank, size) for block in blocks]
        columns = local_columns(targets, blocks, rank, size)
        loss = linear_cross_entropy(
            hidden, columns, own, chunk_size=4, exchange=exchange, **options
        )
        scored = token_nats(hidden, columns, own, exchange=exchange, **options)
        return loss, scored, *torch.autograd.grad(loss, [hidden, *leaves])

    for loss, scored, hidden_grad, *row_grads in (results := on_ranks(size, work)):
        torch.testing.assert_close(loss, whole, rtol=0, atol=1e-12)
        torch.testing.assert_close(scored, nats, rtol=0, atol=1e-12)
        torch.testing.assert_close(hidden_grad, expected[0], rtol=0, atol=1e-12)
        assert len(row_grads) == len(leaves)
    # Each rank's gradient is that of its own rows and zero elsewhere: they add up to the whole.
    summed = [sum(parts) for parts in zip(*(result[3:] for result in results), strict=True)]
    torch.testing.assert_close(summed, list(expected[1:]), rtol=0, atol=1e-12)


def test_a_target_elsewhere_is_refused_where_all_rows_are_here() -> None:
    hidden, targets, blocks = make_inputs()
    with pytest.raises(ValueError, match="got -1"):
        linear_cross_entropy(hidden, torch.full_like(targets, ELSEWHERE), blocks)
