"""Whether a resumed epoch is the rest of the interrupted one, and ranks share the rows out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from lightning_vocab.data.loader import (
    ResumableLoader,
    ResumableSampler,
    evaluation_loader,
    training_loader,
)


pytestmark = [
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
]


class Numbers(Dataset[int]):
    """Row ``i`` is the number ``i``."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    @override
    def __getitem__(self, index: int) -> int:
        return index


def collate(rows: Sequence[int]) -> Tensor:
    return torch.tensor(rows)


class Recorder(LightningModule):
    """Writes down the rows of every batch with the epoch, and how many it had at a checkpoint."""

    def __init__(
        self, num_rows: int = 22, num_workers: int = 0, folder: Path | None = None
    ) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.num_rows = num_rows
        self.num_workers = num_workers
        self.folder = folder
        self.seen: list[tuple[int, list[int]]] = []

    @override
    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.seen.append((self.current_epoch, batch.tolist()))
        return self.weight.sum()

    @override
    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val", self.weight.sum())

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["num_batches_recorded"] = len(self.seen)

    @override
    def train_dataloader(self) -> ResumableLoader:
        ranks = self.trainer.distributed_sampler_kwargs or {"num_replicas": 1, "rank": 0}
        return training_loader(
            Numbers(self.num_rows),
            collate,
            batch_size=4,
            num_workers=self.num_workers,
            seed=7,
            **ranks,
        )

    @override
    def val_dataloader(self) -> DataLoader[Any]:
        return evaluation_loader(Numbers(4), collate, batch_size=2, **self.ranks())

    def ranks(self) -> dict[str, Any]:
        return self.trainer.distributed_sampler_kwargs or {"num_replicas": 1, "rank": 0}

    @override
    def on_train_end(self) -> None:
        if self.folder is not None:
            torch.save(self.seen, self.folder / f"rank{self.global_rank}.pt")


def trainer(folder: Path, callbacks: Sequence[Checkpoint] = (), **options: Any) -> Trainer:
    return Trainer(
        default_root_dir=str(folder),
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        enable_checkpointing=bool(callbacks),
        **options,
    )


def keep_all(folder: Path, **options: Any) -> ModelCheckpoint:
    return ModelCheckpoint(
        folder, filename="{epoch}-{step}", save_top_k=-1, auto_insert_metric_name=True, **options
    )


# fmt: off
LIMITS = [{"max_epochs": 3}, {"max_steps": 15}]
MOMENTS = {
    "after each step": ({"every_n_train_steps": 1}, {}),
    "at epoch ends": ({"every_n_epochs": 1, "save_on_train_epoch_end": True}, {}),
    "after validation in an epoch": ({"every_n_epochs": 1, "save_on_train_epoch_end": False},
                                     {"val_check_interval": 2}),
    "while accumulating": ({"every_n_train_steps": 1}, {"accumulate_grad_batches": 2}),
    "in limited epochs": ({"every_n_train_steps": 1}, {"limit_train_batches": 5}),
}
# fmt: on


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: next(iter(limit)))
@pytest.mark.parametrize("moment", MOMENTS)
def test_resumed_run_sees_exactly_the_batches_that_were_left(
    tmp_path: Path, moment: str, limit: dict[str, int]
) -> None:
    when, options = MOMENTS[moment]
    whole = Recorder()
    trainer(tmp_path, [keep_all(tmp_path, **when)], **limit, **options).fit(whole)
    checkpoints = sorted(tmp_path.glob("*.ckpt"))
    assert len(checkpoints) >= 2
    for checkpoint in checkpoints:
        recorded = torch.load(checkpoint)["num_batches_recorded"]
        rest = Recorder()
        again = trainer(tmp_path, [keep_all(tmp_path, **when)], **limit, **options)
        again.fit(rest, ckpt_path=str(checkpoint))
        assert rest.seen == whole.seen[recorded:], checkpoint.name
