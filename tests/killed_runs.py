"""A run with everything that a checkpoint must hold, in processes that can be killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from typing_extensions import override

from lightning_vocab.callbacks import (
    ExpansionReport,
    ExportHuggingFace,
    FreezeBackbone,
    UnfreezeAt,
)
from lightning_vocab.checkpoint_io import checkpoint_to_resume, write_whole_checkpoints
from lightning_vocab.datamodule import VocabDataModule
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.schedules import WarmupCosine
from lightning_vocab.vocabulary import ContinuedBPE
from lightning_vocab.vocabulary.whole_files import whole_file
from tests.conftest import NEW_TEXTS, TEXTS
from tests.forked import take_own_progress_lock

STEPS, EVERY, EMBEDDINGS, FULL = 18, 3, 5, 10
Aim = Callable[[], None]  # changes a library inside the process that is to die


class Diary(Callback):
    """Notes each batch and each start on the spot, so that a kill takes none of it back."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._note("start", trainer.global_step, "")

    @override
    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        batch = trainer.fit_loop.total_batch_idx
        loss = float(trainer.callback_metrics["train/loss_nats"]).hex()
        self._note("batch", trainer.global_step, f"{batch} {loss}")

    def _note(self, what: str, step: int, told: str) -> None:
        with self.file.open("a") as file:  # one short write, which is whole or not there
            file.write(f"{what} {step} {told}\n")


@dataclass(frozen=True)
class Run:
    """A run in a folder of its own, on a base with dropout; `start` is one try at all of it."""

    folder: Path
    base: Path

    @classmethod
    def make(cls, folder: Path, base: str) -> Run:
        """The text, and a copy of the base whose attention drops a fifth."""
        folder.mkdir()
        for name, texts in (("train", NEW_TEXTS * 7), ("new", NEW_TEXTS), ("old", TEXTS[:1])):
            lines = [json.dumps({"text": each}) for each in texts]
            (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / "base").mkdir()
        for file in Path(base).iterdir():
            (folder / "base" / file.name).write_bytes(file.read_bytes())
        config = json.loads((folder / "base" / "config.json").read_text())
        config["attention_dropout"] = 0.2
        (folder / "base" / "config.json").write_text(json.dumps(config))
        return cls(folder, folder / "base")

    def start(self, aim: Aim | None = None) -> ForkProcess:
        """A process that begins the run or goes on with it."""
        process = multiprocessing.get_context("fork").Process(target=self._work, args=(aim,))
        process.start()
        return process

    def diary(self) -> list[tuple[str, int, str]]:
        """Kind, optimizer steps and what was told, of each note so far."""
        file = self.folder / "diary.txt"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(what, int(step), told) for what, step, told in (x.split(" ", 2) for x in lines)]

    def losses(self) -> dict[int, str]:
        """The loss of each batch, bit for bit; a batch that was trained on twice lost the same."""
        found: dict[int, str] = {}
        for what, _, told in self.diary():
            if what == "batch":
                batch, loss = told.split()
                assert found.setdefault(int(batch), loss) == loss, f"batch {batch}"
        return found

    def _work(self, aim: Aim | None) -> None:
        take_own_progress_lock()
        output = os.open(self.folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        warnings.simplefilter("ignore")
        if aim is not None:
            aim()
        self._fit()

    def _fit(self) -> None:
        seed_everything(7)
        module, trainer = self.module(), self.trainer()
        write_whole_checkpoints(trainer)
        newest = checkpoint_to_resume(trainer)
        trainer.fit(module, datamodule=self.data(), ckpt_path=newest)
        end = {"weights": module.state_dict(), "optimizer": trainer.optimizers[0].state_dict()}
        with whole_file(self.folder / "end.pt") as fresh:
            torch.save(end, fresh)

    def module(self) -> VocabExpansionModule:
        return VocabExpansionModule(
            base=str(self.base),
            expansion_dir=str(self.folder / "expansion"),
            lr_scheduler=lambda optimizer: WarmupCosine(
                optimizer, total_steps=STEPS, warmup_steps=2, starts={"old_rows": EMBEDDINGS}
            ),
            lr_new_rows=0.02,
            lr_old_rows=0.01,
            lr_backbone=0.005,
            weight_decay_rows=0.1,
        )

    def data(self) -> VocabDataModule:
        return VocabDataModule(
            base=str(self.base),
            expansion_dir=str(self.folder / "expansion"),
            extender=ContinuedBPE(num_new_tokens=12),
            train=str(self.folder / "train.jsonl"),
            val={name: str(self.folder / f"{name}.jsonl") for name in ("new", "old")},
            block_size=24,
            batch_size=3,
            layout="padded",
            cache_dir=str(self.folder / "cache"),
        )

    def trainer(self, *callbacks: Callback, **options: Any) -> Trainer:
        saving = ModelCheckpoint(
            self.folder / "checkpoints",
            filename="{step}",
            every_n_train_steps=EVERY,
            save_last=True,
        )
        return Trainer(
            accelerator="cpu",
            max_steps=STEPS,
            max_epochs=-1,
            gradient_clip_val=0.5,
            limit_val_batches=0,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=self.folder,
            callbacks=[
                FreezeBackbone(),
                UnfreezeAt(EMBEDDINGS, phase="embeddings"),
                UnfreezeAt(FULL),
                Diary(self.folder / "diary.txt"),
                ExpansionReport(str(self.folder / "report.json")),
                ExportHuggingFace(str(self.folder / "export"), overwrite=True),
                saving,
                *callbacks,
            ],
            **({"devices": 1, "accumulate_grad_batches": 2} | options),
        )


def dies_in(owner: Any, name: str, nth: int, *, after: bool = False) -> Aim:
    """Makes the ``nth`` call of a function the last thing that its process begins, or does."""

    def aim() -> None:
        original, calls = getattr(owner, name), 0

        def deadly(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == nth and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*args, **kwargs)
            if calls == nth:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, deadly)

    return aim


def dies_half_way(nth: int) -> Aim:
    """Makes the process die when half of its ``nth`` checkpoint is written."""

    def aim() -> None:
        original, calls = torch.save, 0

        def deadly(value: Any, path: Path) -> None:
            nonlocal calls
            calls += 1
            original(value, path)
            if calls == nth:
                os.truncate(path, path.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        torch.save = deadly  # type: ignore[assignment]  # in a process of its own

    return aim
