"""A loader of rows that are read from a stream, which continues exactly where a run was left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_vocab.data.loader import loader_options
from lightning_vocab.data.ranks import from_all_ranks
from lightning_vocab.data.streamed_rows import Place, StreamedRows

State = dict[str, Any]


def _alone(state: State) -> list[State]:
    return [state]


class StreamLoader:
    """Batches without end whose state is the place of every worker of every rank.

    Lightning stores the state in the checkpoint. A resumed run gets, bit for bit, the batches that
    the uninterrupted one would have got, with any number of workers: each batch comes with the
    place behind it, so what workers have fetched ahead does not count as handed out. Iterating
    again goes on, it does not begin anew: an epoch of the Trainer is a stretch of the stream.

    It is no `torch.utils.data.DataLoader` but uses one: Lightning would warn of the length of an
    iterable data set, and without a length fetch a batch ahead, which would be lost on resume.

    Args:
        rows: The rows.
        num_batches: Batches of an epoch of the Trainer; None if nobody asks.
        gather: Gives the states of all ranks for that of this rank. A checkpoint is written by one
            rank alone, and each stands at a place of its own. Every rank must take part.
    """

    def __init__(
        self,
        rows: StreamedRows,
        *,
        num_batches: int | None = None,
        gather: Callable[[State], list[State]] = _alone,
    ) -> None:
        self.rows = rows
        self.num_batches = num_batches
        self.gather = gather
        self._places = [Place()] * rows.num_processes
        self._num_batches_seen = 0
        self._iterator: Iterator[Any] | None = None  # Lightning stops its workers by this name
        rows.tell_sharing()

    def __len__(self) -> int:
        if self.num_batches is None:
            raise TypeError("A stream has no length: set num_batches to say where an epoch ends.")
        return self.num_batches

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        while True:
            if self._iterator is None:
                self._iterator = self._start()
            batch, place = next(self._iterator)
            self._places[self._turn] = place
            self._num_batches_seen += 1
            yield batch

    def state_dict(self) -> State:
        """The places of all ranks, and what the order of the rows depends on.

        Every rank must call it.
        """
        own = {"rank": self.rows.rank, "places": [place.plain() for place in self._places]}
        # Ranks that read the same text, as under tensor parallelism, stand at the same place.
        ranks = {each["rank"]: each["places"] for each in self.gather(own)}
        return {
            "num_batches_seen": self._num_batches_seen,
            "places": [ranks[rank] for rank in sorted(ranks)],
            "stream": self.rows.order,
        }

    def load_state_dict(self, state: State) -> None:
        """Continue at the place of this rank.

        Raises:
            MisconfigurationException: If the places mean nothing here, because the training text
                of the run was not streamed, or files, ranks, workers or the order are others now.
        """
        before, now = state.get("stream"), self.rows.order
        if before is None:
            raise MisconfigurationException(
                "The checkpoint was saved by a run that did not stream its training text, so its "
                "place in the text says nothing here. Resume with streaming=False."
            )
        if before != now and state["num_batches_seen"]:
            raise MisconfigurationException(
                f"The checkpoint was saved at a place in a stream with {before}, but the stream "
                f"now has {now}, so the rest of the text is not known. Resume with the same files, "
                "devices, num_workers, shuffle_buffer and seed."
            )
        self._iterator = None
        self._num_batches_seen = state["num_batches_seen"]
        if self._num_batches_seen:
            self._places = [Place.of(values) for values in state["places"][self.rows.rank]]

    @property
    def _turn(self) -> int:
        """The worker whose batch is next: torch asks one after the other, and none ever ends."""
        return self._num_batches_seen % len(self._places)

    def _start(self) -> Iterator[Any]:
        self.rows.start_at(self._places, self._turn)
        options = loader_options(_as_they_are, None, self.rows.num_workers)
        return iter(DataLoader(self.rows, **options))


def stream_loader(rows: StreamedRows, trainer: Trainer | None) -> StreamLoader:
    """A loader of ``rows`` for a run.

    Args:
        rows: The rows of this rank.
        trainer: The Trainer that fits; without one the loader has no length.

    Raises:
        MisconfigurationException: As `batches_of_an_epoch` says.
    """
    if trainer is None:
        return StreamLoader(rows)
    gather = partial(from_all_ranks, trainer)
    return StreamLoader(rows, num_batches=batches_of_an_epoch(trainer), gather=gather)


def _as_they_are(batch: Any) -> Any:
    return batch


def batches_of_an_epoch(trainer: Trainer) -> int:
    """Batches after which an epoch of the Trainer ends where the training text has no end.

    That many as ``limit_train_batches`` says, else as many as ``max_steps`` needs: the whole run is
    one epoch then.

    Args:
        trainer: A Trainer that fits.

    Raises:
        MisconfigurationException: If neither is given, or the Trainer is to read the same batches
            again.
    """
    options: Any = trainer  # Lightning declares few of them
    if options.overfit_batches or options.reload_dataloaders_every_n_epochs:
        raise MisconfigurationException(
            "Streamed text is read on and on, but overfit_batches and "
            "reload_dataloaders_every_n_epochs read its beginning again. Leave them out, or set "
            "streaming=False."
        )
    limit = trainer.limit_train_batches
    if isinstance(limit, int):
        return limit
    if limit != 1.0:
        raise MisconfigurationException(
            "How long streamed text is, is not known, so a share of it cannot be told: expected "
            f"limit_train_batches as a number of batches, got {limit}."
        )
    if trainer.max_steps < 0:
        raise MisconfigurationException(
            "Streamed text has no end: expected the Trainer's max_steps, or limit_train_batches as "
            f"the batches of an epoch, got max_steps={trainer.max_steps} and "
            f"max_epochs={trainer.max_epochs}. Give one of the two, or set streaming=False."
        )
    return trainer.max_steps * trainer.accumulate_grad_batches
