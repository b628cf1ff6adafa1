"""A Trainer that shows nothing, and a module that writes down what it is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor
from typing_extensions import override


def quiet_trainer(folder: Path, callbacks: Sequence[Callback] = (), **options: Any) -> Trainer:
    """A Trainer on the CPU that saves where a callback says so and nowhere else."""
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "num_sanity_val_steps": 0,
        "enable_checkpointing": any(isinstance(one, Checkpoint) for one in callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
    }
    return Trainer(callbacks=list(callbacks), **(settings | options))


class Recorder(LightningModule):
    """Trains nothing, and notes every training batch; a checkpoint says how many it had.

    Each rank leaves its notes in ``folder``, if there is one, for the parent process to read.
    """

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.folder = folder
        self.seen: list[Any] = []

    def note(self, batch: Any) -> Any:
        """What is kept of a batch."""
        return batch.tolist()

    @override
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen.append(self.note(batch))
        return self.weight.sum()

    @override
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Only there so that validation runs between the batches."""

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["num_batches_recorded"] = len(self.seen)

    @override
    def on_train_end(self) -> None:
        if self.folder is not None:
            torch.save(self.seen, self.folder / f"rank{self.global_rank}.pt")
