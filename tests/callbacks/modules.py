"""A LightningModule around a pico Llama; rank, epoch and batch index alone decide its batches."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR
from torch.utils.data import DataLoader
from typing_extensions import override

from lightning_vocab.rows.split import SplitEmbedding, SplitHead, SplitRows
from tests.conftest import make_model
from tests.quiet import quiet_trainer

BASE_ROWS = 40
NEW_IDS = [5, 40, 41, 42]  # one slot in the middle, three appended
NUM_ROWS = 43
DECAY = 0.1
BATCHES_PER_EPOCH = 5
Options = dict[str, Any]  # arguments of the Trainer


def split_model(*, tied: bool) -> Any:
    """A pico Llama split by hand; the untied one has a head bias."""
    model: Any = make_model(BASE_ROWS, tied=tied)
    rows = _split(model.get_input_embeddings().weight, None)
    head_rows = rows if tied else _split(model.lm_head.weight, torch.zeros(BASE_ROWS))
    model.set_input_embeddings(SplitEmbedding(rows))
    model.lm_head = SplitHead(head_rows)
    return model


def ordinary_model(*, tied: bool) -> Any:
    """The same model with one matrix: row 5 and the last three are new; untied with a head bias."""
    split = split_model(tied=tied)
    model: Any = make_model(NUM_ROWS, tied=tied)
    model.load_state_dict(split.state_dict(), strict=False)  # the backbone
    matrix, _ = split.get_input_embeddings().rows.merged()
    head_matrix, bias = split.lm_head.rows.merged()
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(matrix)
        model.lm_head.weight.copy_(head_matrix)
    if bias is not None:
        model.lm_head.bias = nn.Parameter(bias)
    return model


def _split(old: nn.Parameter, bias: Tensor | None) -> SplitRows:
    generator = torch.Generator().manual_seed(3)
    return SplitRows(
        old,
        torch.randn(len(NEW_IDS), old.shape[1], generator=generator) * 0.02,
        torch.tensor(NEW_IDS),
        torch.zeros(0, old.shape[1]),
        old_bias=None if bias is None else nn.Parameter(bias),
        new_bias=None if bias is None else torch.zeros(len(NEW_IDS)),
        padding_bias=None if bias is None else torch.zeros(0),
    )


class PicoModule(LightningModule):
    """Static, named parameter groups; everything is in the optimizer from the start.

    ``scores`` holds what the validation after each epoch logs as ``val/score``; a rank above 0 logs
    a lower value each time, so ranks which judge for themselves disagree. ``ranks`` makes one
    process see the batches of several.
    """

    def __init__(
        self,
        *,
        tied: bool = True,
        split: bool = True,
        optimizer: Literal["fused", "adamw", "sgd"] = "fused",
        schedule: Literal["lambda", "one_cycle"] = "lambda",
        scores: Sequence[float] = (),
        frozen_by_user: Sequence[str] = (),
        ranks: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.tied, self.split = tied, split
        self.optimizer_name, self.schedule = optimizer, schedule
        self.scores, self.frozen_by_user, self.ranks = scores, frozen_by_user, ranks
        self.model: Any = None
        self.trained: list[tuple[int, tuple[str, ...]]] = []

    @override
    def configure_model(self) -> None:
        if self.model is None:
            self.model = (split_model if self.split else ordinary_model)(tied=self.tied).train()
            for name in self.frozen_by_user:
                self.model.get_parameter(name).requires_grad_(False)

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        groups = [
            {"params": params, "name": name, "weight_decay": 0.0 if "no_decay" in name else DECAY}
            for name, params in self.groups().items()
        ]
        # Fused, as in the recipes; None is what torch takes by default.
        made: Optimizer = AdamW(groups, lr=1e-2, fused=self.optimizer_name == "fused" or None)
        if self.optimizer_name == "sgd":
            made = SGD(groups, lr=0.1)
        scheduler: Any = LambdaLR(made, lambda step: 1.0 / (1 + 0.1 * step))
        if self.schedule == "one_cycle":
            scheduler = OneCycleLR(made, max_lr=1e-2, total_steps=20)
        return {"optimizer": made, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters by name: tied ones once, as ``named_parameters`` lists them."""
        groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            groups.setdefault(_group_of(name, parameter), []).append(parameter)
        return groups

    @override
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        trained = {
            name for name, params in self.groups().items() if any(p.requires_grad for p in params)
        }
        self.trained.append((self.trainer.global_step, tuple(sorted(trained))))

    @override
    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        seed = 1000 * self.current_epoch + batch_idx
        losses = [self.loss(10_000 * rank + seed) for rank in self.ranks or (self.global_rank,)]
        return torch.stack(losses).mean()

    @override
    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        epochs = self.trainer.global_step // BATCHES_PER_EPOCH
        score = self.scores[min(epochs, len(self.scores)) - 1] if epochs else 9.0
        self.log("val/score", score - 10.0 * epochs * self.global_rank)

    def loss(self, seed: int) -> Tensor:
        """Mean cross-entropy of one random batch."""
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(NUM_ROWS, (2, 12), generator=generator).to(self.device)
        logits = self.model(ids[:, :-1]).logits
        return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

    @override
    def train_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(torch.zeros(64, 1))  # type: ignore[arg-type]  # a tensor has length and items

    @override
    def val_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(torch.zeros(2, 1))  # type: ignore[arg-type]  # as above


def _group_of(name: str, parameter: nn.Parameter) -> str:
    if name.endswith(("rows.new", "rows.new_bias")):
        return "new_rows"
    if name.endswith(("rows.old", "rows.old_bias")):
        return "old_rows"
    if "embed_tokens" in name or "lm_head" in name:
        return "embedding"
    return "backbone_decay" if parameter.dim() > 1 else "backbone_no_decay"


class SaveAt(Checkpoint):
    """Saves a checkpoint when the given step has been made; runs after all other callbacks."""

    def __init__(self, path: Path, step: int, *, after_validation: bool = False) -> None:
        self.path, self.step, self.after_validation = path, step, after_validation

    @override
    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._save(trainer, is_due=not self.after_validation)

    @override
    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        self._save(trainer, is_due=self.after_validation)

    def _save(self, trainer: Trainer, *, is_due: bool) -> None:
        if is_due and trainer.global_step == self.step and not self.path.exists():
            trainer.save_checkpoint(self.path)


class WriteRanks(Callback):
    """Writes what each rank holds at the end of the fit, for the parent process to compare."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, PicoModule)
        torch.save(final_state(pl_module), self.folder / f"rank{trainer.global_rank}.pt")


def final_state(module: PicoModule) -> dict[str, Any]:
    """Weights, optimizer and schedule at the end of a fit, and what trained at each batch."""
    (optimizer,) = module.trainer.optimizers
    return {
        "weights": {name: value.clone() for name, value in module.state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "lrs": module.trainer.lr_scheduler_configs[0].scheduler.get_last_lr(),
        "trained": module.trained,
    }


def make_trainer(folder: Path, callbacks: Sequence[Callback], **options: Any) -> Trainer:
    """A silent Trainer on one CPU process."""
    settings: dict[str, Any] = {
        "devices": 1,
        "max_steps": 8,
        "limit_train_batches": BATCHES_PER_EPOCH,
        "limit_val_batches": 0,
    }
    return quiet_trainer(folder, callbacks, **(settings | options))


def fit(
    folder: Path,
    module: PicoModule,
    callbacks: Sequence[Callback],
    *,
    ckpt_path: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The final state of one process."""
    make_trainer(folder, callbacks, **options).fit(module, ckpt_path=ckpt_path)
    return final_state(module)


def fit_two_ranks(
    folder: Path,
    module: PicoModule,
    callbacks: Sequence[Callback],
    *,
    ckpt_path: str | None = None,
    ddp: dict[str, Any] | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """The final state of each of two ranks, forked; ranks that disagree time out."""
    folder.mkdir(exist_ok=True)
    strategy = DDPStrategy(start_method="fork", timeout=timedelta(seconds=30), **(ddp or {}))
    callbacks = [*callbacks, WriteRanks(folder)]
    trainer = make_trainer(folder, callbacks, devices=2, strategy=strategy, **options)
    trainer.fit(module, ckpt_path=ckpt_path)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


def is_same(left: Any, right: Any) -> bool:
    """Whether two nested states are equal, tensors bit for bit."""
    if isinstance(left, Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(is_same(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(is_same, left, right))
    return bool(left == right)
