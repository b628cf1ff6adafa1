"""Data loaders that continue within an epoch, and that give every row to exactly one rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from typing_extensions import override

Collation = Callable[[Sequence[Any]], Any]

_BLOCK = 10_000  # numbers of rows that are made at once


class ResumableSampler(DistributedSampler[int]):
    """The rows of one rank in an order that the seed and the epoch fix, from any place on.

    Lightning leaves a `DistributedSampler` alone, on one process too, and tells it the epoch.
    Ranks get equally many rows: fewer than ``num_replicas`` rows are left out of an epoch, others
    in each epoch.

    Args:
        rows: The rows of all ranks.
        num_replicas: Number of ranks.
        rank: This rank.
        seed: Seed of the order.

    Raises:
        ValueError: If there are fewer rows than ranks.

    Example:
        >>> sampler = ResumableSampler(range(6), seed=7)
        >>> order = list(sampler)
        >>> sampler.start_at(epoch=0, row=4)
        >>> list(sampler) == order[4:], len(sampler)
        (True, 6)
    """

    def __init__(
        self,
        rows: Dataset[Any] | Sequence[Any],
        num_replicas: int = 1,
        rank: int = 0,
        seed: int = 0,
    ) -> None:
        self.num_rows = len(rows)  # type: ignore[arg-type]  # torch does not declare Dataset.__len__
        if self.num_rows < num_replicas:
            raise ValueError(
                f"Expected at least one row for each of {num_replicas} ranks, got {self.num_rows}: "
                "give more text, a smaller block_size or fewer devices."
            )
        super().__init__(rows, num_replicas, rank, shuffle=True, seed=seed, drop_last=True)  # type: ignore[arg-type]  # any sequence will do
        self.start_at(epoch=0, row=0)

    @override
    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        self.start_at(epoch, row=0)

    def start_at(self, epoch: int, row: int) -> None:
        """Let the next iteration be that of ``epoch`` without its first ``row`` rows of this rank.

        The length stays that of a whole epoch.
        """
        self._start = (epoch, row)

    @override
    def __iter__(self) -> Iterator[int]:
        epoch, row = self._start
        generator = torch.Generator().manual_seed(self.seed + epoch)
        order = torch.randperm(self.num_rows, generator=generator)
        # A copy, and numbers made in blocks: no rank keeps the rows of others, or a long list.
        of_this_rank = order[self.rank : self.total_size : self.num_replicas][row:].clone()
        del order
        return chain.from_iterable(block.tolist() for block in torch.split(of_this_rank, _BLOCK))


class ResumableLoader(DataLoader[Any]):
    """A data loader whose state is the epoch and the batches that were handed out in it.

    Lightning stores the state in the checkpoint. Resumed in the middle of an epoch, the loader
    hands out the rest of it, in the same order and no batch twice; its length stays that of the
    whole epoch, as Lightning's own count expects. A batch that was being trained on when an
    exception struck counts as handed out.

    Args:
        dataset: Rows.
        limit_batches: The Trainer's ``limit_train_batches``: where an epoch ends.
        kwargs: As for `torch.utils.data.DataLoader`; the sampler must be a `ResumableSampler`.
    """

    def __init__(
        self, dataset: Dataset[Any], *, limit_batches: int | float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(dataset, **kwargs)
        self.limit_batches = limit_batches
        self._epoch: int | None = None
        self._num_batches_seen = 0
        self._is_resuming = False

    @override
    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch declares its private iterator
        # A generator runs on the first `next`, when Lightning has announced the epoch. Workers ask
        # for batches ahead of time, so only what is handed out is counted.
        self._begin_epoch()
        for batch in super().__iter__():
            self._num_batches_seen += 1
            yield batch

    def _begin_epoch(self) -> None:
        sampler = self.sampler
        if not isinstance(sampler, ResumableSampler):  # `overfit_batches` puts in another one
            return
        is_inside = self._is_resuming and self._num_batches_seen < self._num_batches
        if self._epoch is None:
            self._epoch = sampler.epoch
        elif not is_inside:
            # Not the epoch that Lightning 2.6 announces: with `max_steps` it counts one too many
            # from a checkpoint of the end of an epoch on.
            self._epoch += 1
        self._num_batches_seen = self._num_batches_seen if is_inside else 0
        self._is_resuming = False
        assert self.batch_size is not None
        sampler.start_at(self._epoch, self._num_batches_seen * self.batch_size)

    def state_dict(self) -> dict[str, Any]:
        """The place in the epoch, and what the order of the batches depends on."""
        return {
            "epoch": self._epoch,
            "num_batches_seen": self._num_batches_seen,
            "order": self._order(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at the place that ``state`` names.

        Raises:
            MisconfigurationException: If the epoch was left in the middle and the rest of it
                cannot be told, because rows, batch size, number of ranks or seed are others now,
                or if the text was streamed.
        """
        if "order" not in state:
            raise MisconfigurationException(
                "The checkpoint was saved by a run that streamed its training text, so its place "
                "in the text says nothing here. Resume with streaming=True."
            )
        before, now = state["order"], self._order()
        is_inside = 0 < state["num_batches_seen"] < before["num_batches"]
        if is_inside and before != now:
            raise MisconfigurationException(
                f"The checkpoint was saved after {state['num_batches_seen']} batches of an epoch "
                f"with {before}, but the data loader now has {now}, so the rest of the epoch is "
                "not known. Resume with the same data, batch size, devices and seed, or from a "
                "checkpoint of the end of an epoch."
            )
        self._epoch = state["epoch"]
        self._num_batches_seen = state["num_batches_seen"] if is_inside else self._num_batches
        self._is_resuming = True

    @property
    def _num_batches(self) -> int:
        """Batches after which Lightning ends an epoch."""
        if isinstance(self.limit_batches, int):
            return min(len(self), self.limit_batches)
        return int(len(self) * self.limit_batches)

    def _order(self) -> dict[str, int | None]:
        return {
            "num_rows": getattr(self.sampler, "num_rows", None),
            "num_batches": self._num_batches,
            "batch_size": self.batch_size,
            "num_replicas": getattr(self.sampler, "num_replicas", None),
            "seed": getattr(self.sampler, "seed", None),
        }


def training_loader(
    rows: Dataset[Any],
    collate: Collation,
    *,
    batch_size: int,
    num_workers: int = 0,
    seed: int = 0,
    num_replicas: int = 1,
    rank: int = 0,
    limit_batches: int | float = 1.0,
) -> ResumableLoader:
    """A shuffled loader over the rows of this rank that can resume within an epoch.

    Args:
        rows: The rows of all ranks.
        collate: Makes a batch of rows.
        batch_size: Rows of a batch and rank; the last batch of an epoch may have fewer.
        num_workers: Processes that load batches.
        seed: Seed of the order; epochs differ.
        num_replicas: Number of ranks.
        rank: This rank.
        limit_batches: The Trainer's ``limit_train_batches``.
    """
    return ResumableLoader(
        rows,
        limit_batches=limit_batches,
        sampler=ResumableSampler(rows, num_replicas, rank, seed),
        **loader_options(collate, batch_size, num_workers),
    )


def evaluation_loader(
    rows: Dataset[Any],
    collate: Collation,
    *,
    batch_size: int,
    num_workers: int = 0,
    num_replicas: int = 1,
    rank: int = 0,
) -> DataLoader[Any]:
    """A loader in the order of the rows that gives every row to one rank.

    Args:
        rows: The rows of all ranks, a multiple of ``num_replicas`` (`StoredRows` fills up).
        collate: Makes a batch of rows.
        batch_size: Rows of a batch and rank.
        num_workers: Processes that load batches.
        num_replicas: Number of ranks.
        rank: This rank.

    Raises:
        ValueError: If the rows are no multiple of ``num_replicas``: torch would repeat some.
    """
    num_rows = len(rows)  # type: ignore[arg-type]  # torch does not declare Dataset.__len__
    if num_rows % num_replicas:
        raise ValueError(f"Expected a multiple of {num_replicas} rows, got {num_rows}.")
    sampler: DistributedSampler[Any] = DistributedSampler(rows, num_replicas, rank, shuffle=False)
    return DataLoader(rows, sampler=sampler, **loader_options(collate, batch_size, num_workers))


def loader_options(collate: Collation, batch_size: int | None, num_workers: int) -> dict[str, Any]:
    """Arguments of `torch.utils.data.DataLoader` that all loaders have in common.

    Args:
        collate: Makes a batch of rows.
        batch_size: Rows of a batch; None if the data set gives whole batches.
        num_workers: Processes that load batches.
    """
    return {
        "batch_size": batch_size,
        "collate_fn": collate,
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
        # Seeds of workers from a generator of their own: loading leaves the global random state
        # as it is.
        "generator": torch.Generator(),
        "pin_memory": torch.cuda.is_available(),
    }


def check_counts(
    batch_size: int, val_batch_size: int, num_proc: int, num_workers: int, shuffle_buffer: int = 1
) -> None:
    """Refuse sizes of batches and numbers of processes and documents that make no sense.

    Raises:
        ValueError: If a number is too small.
    """
    if min(batch_size, val_batch_size, num_proc, num_workers + 1, shuffle_buffer) < 1:
        raise ValueError(
            "Expected batch_size, val_batch_size, num_proc and shuffle_buffer of at least 1 and "
            f"num_workers of at least 0, got {batch_size}, {val_batch_size}, {num_proc}, "
            f"{shuffle_buffer} and {num_workers}."
        )
