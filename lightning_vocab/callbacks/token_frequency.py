"""Lists, before the first step, the new rows that a run will hardly train."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
from lightning.fabric.utilities import rank_zero_warn
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from typing_extensions import override

from lightning_vocab.data.rows import PackedRows, StoredRows
from lightning_vocab.datamodule import VocabDataModule
from lightning_vocab.vocabulary.measuring.token_frequency import TokenFrequency

_BATCH = 10_000


class NewTokenFrequency(Callback):
    """Counts the new tokens in the training text and warns of rows that will be trained too rarely.

    A token that is hardly ever trained is worse than none: text is cut into it, and the model does
    not know it. The count is of the tokenised rows that the run reads, not of a sample, and is
    scaled to the steps of this run; rows that stay below ``floor`` direct updates are listed, the
    rarest first. Needs a `VocabDataModule` with an expansion. One pass over the tokenised rows on
    rank zero, in blocks from the memory-mapped cache: about a second for 100 million tokens.

    Args:
        floor: Direct updates that a new row should get at least.
        max_rows: Rows that the table shows.

    Raises:
        ValueError: If the floor is not positive.
        MisconfigurationException: At the start of `fit`, if there is no `VocabDataModule` with an
            expansion, the training text is streamed, or the run has no end.

    Example:
        >>> NewTokenFrequency(floor=50).floor
        50
    """

    def __init__(self, floor: float = 100, max_rows: int = 20) -> None:
        if floor <= 0:
            raise ValueError(f"Expected a positive floor of direct updates, got {floor}.")
        self.floor = floor
        self.max_rows = max_rows
        self.frequency: TokenFrequency | None = None

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a run without new tokens."""
        if stage != "fit":
            return
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, VocabDataModule) or data.expanded is None:
            raise MisconfigurationException(
                "NewTokenFrequency counts the new tokens in the rows of a VocabDataModule with an "
                f"expansion_dir, got {type(data).__name__} without new tokens."
            )
        if data.plan.is_streamed:
            raise MisconfigurationException(
                "NewTokenFrequency counts the tokenised rows before the run, and streamed text has "
                "none. Leave it out (NewTokenUsage counts while the run trains), or set "
                "streaming=False."
            )

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count on rank zero, and list the rows below the floor."""
        if not trainer.is_global_zero:
            return
        self.frequency = self._count(trainer)
        below = self.frequency.below(self.floor)
        if below:
            Console().print(self.frequency.table(self.floor, self.max_rows))
            rank_zero_warn(
                f"{len(below)} of {len(self.frequency.tokens)} new rows get fewer than "
                f"{self.floor:g} direct updates in this run: train longer, give more text in which "
                "they occur, or add fewer tokens."
            )

    def _count(self, trainer: Trainer) -> TokenFrequency:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]  # set by `fit`
        loader: Any = trainer.train_dataloader
        expansion = data.expanded.expansion
        num_steps = trainer.estimated_stepping_batches
        if math.isinf(num_steps):
            raise MisconfigurationException(
                "NewTokenFrequency cannot tell how often a row is trained in a run without an end: "
                "give the Trainer max_steps or max_epochs."
            )
        counts = _count_ids(_stored(loader.dataset), expansion.num_rows)
        num_text_tokens = int(counts.sum())
        # Ranks share the batches of an epoch, so this holds for any number of them.
        num_epochs = num_steps * trainer.accumulate_grad_batches / len(loader)
        return TokenFrequency(
            expansion.tokens,
            counts[list(expansion.new_ids)],
            num_text_tokens,
            max(1, round(num_text_tokens * num_epochs)),
        )


def _stored(rows: object) -> Sequence[datasets.Dataset]:
    if isinstance(rows, PackedRows):
        return rows.documents
    if isinstance(rows, StoredRows):
        return [rows.rows]
    raise MisconfigurationException(
        "NewTokenFrequency reads the training rows of a VocabDataModule, got "
        f"{type(rows).__name__}."
    )


def _count_ids(rows: Sequence[datasets.Dataset], num_rows: int) -> npt.NDArray[np.int64]:
    """Occurrences of each id, ``(num_rows,)``, in blocks."""
    counts = np.zeros(num_rows, np.int64)
    for dataset in rows:
        for block in dataset.with_format("arrow").iter(batch_size=_BATCH):
            for chunk in block.column("input_ids").chunks:
                counts += np.bincount(chunk.flatten().to_numpy(), minlength=num_rows)
    return counts
