"""Which rows a run sees after it is resumed, and which rank sees which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from lightning_vocab.callbacks import FreezeBackbone
from lightning_vocab.module import VocabExpansionModule
from tests.grounding.small import module_for, prepared, split_rows, trainer


class Recorder(LightningModule):
    """Writes down the rows that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[list[list[int]]] = []

    @override
    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.seen.append(batch["input_ids"].tolist())
        return self.weight.sum()

    @override
    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None: ...

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_run_resumed_within_an_epoch_sees_the_rows_that_were_left(
    tied_folder: str, tmp_path: Path
) -> None:
    def fit(max_steps: int, ckpt_path: Path | None = None) -> tuple[Recorder, Trainer]:
        module, fitting = Recorder(), trainer(tmp_path, max_steps=max_steps)
        fitting.fit(module, module_for(tmp_path, tied_folder), ckpt_path=ckpt_path)
        return module, fitting

    whole, _ = fit(max_steps=14)
    _, interrupted = fit(max_steps=3)
    interrupted.save_checkpoint(tmp_path / "inside.ckpt")
    rest, _ = fit(max_steps=14, ckpt_path=tmp_path / "inside.ckpt")
    assert rest.seen == whole.seen[3:]


@pytest.mark.slow
def test_a_run_resumed_within_an_epoch_ends_with_the_rows_of_an_uninterrupted_one(
    tied_folder: str, tmp_path: Path
) -> None:
    def fit(max_steps: int, ckpt_path: Path | None = None) -> tuple[Tensor, Trainer]:
        module = VocabExpansionModule(tied_folder, str(tmp_path / "expansion"), lr_new_rows=0.01)
        fitting = trainer(tmp_path, max_steps=max_steps, callbacks=[FreezeBackbone()])
        fitting.fit(module, module_for(tmp_path, tied_folder), ckpt_path=ckpt_path)
        return split_rows(module)[0].new, fitting

    whole, _ = fit(max_steps=8)
    _, interrupted = fit(max_steps=3)
    interrupted.save_checkpoint(tmp_path / "inside.ckpt")
    resumed, _ = fit(max_steps=8, ckpt_path=tmp_path / "inside.ckpt")
    assert torch.equal(resumed, whole)


class Sharing(Recorder):
    """Leaves what it was given to the process that started it."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    @override
    def on_train_end(self) -> None:
        torch.save(self.seen, self.folder / f"rank{self.global_rank}.pt")


@pytest.mark.slow
@pytest.mark.ddp
def test_two_ranks_share_the_rows_of_an_epoch(tied_folder: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"devices": 2, "strategy": "ddp_fork", "max_epochs": 1}
    trainer(tmp_path, **options).fit(Sharing(tmp_path), module_for(tmp_path, tied_folder))
    data = prepared(tmp_path, tied_folder)
    seen = []
    for rank in range(2):
        batches = torch.load(tmp_path / f"rank{rank}.pt")
        texts = [str(data.tokenizer.decode(row)) for batch in batches for row in batch]
        seen.append([text.split("<|end|>")[1] for text in texts])  # without the padding
    assert [len(rows) for rows in seen] == [12, 12]
    assert len(set(seen[0] + seen[1])) == 24
