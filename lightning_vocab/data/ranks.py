"""What the ranks of a run tell each other about its text."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from lightning.pytorch import Trainer

T = TypeVar("T")


def from_all_ranks(trainer: Trainer, value: T) -> list[T]:
    """The values of all ranks, by rank; every rank must ask.

    Args:
        trainer: The Trainer that the ranks belong to.
        value: This rank's value, of any kind that can be pickled.
    """
    strategy = trainer.strategy
    return [strategy.broadcast(value, src=rank) for rank in range(trainer.world_size)]


def from_first_rank(trainer: Trainer | None, make: Callable[[], T]) -> T:
    """What ``make`` gives on rank zero, where alone it is called; every rank must ask.

    Args:
        trainer: The Trainer that the ranks belong to; None on a process of its own.
        make: Makes the value.
    """
    if trainer is None:
        return make()
    made: T | None = make() if trainer.is_global_zero else None
    told: T | None = trainer.strategy.broadcast(made)
    assert told is not None
    return told
