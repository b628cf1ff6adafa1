"""Runs of a Trainer under `ModelParallelStrategy` on the CPU, small enough for a test."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, default_collate

from lightning_vocab.callbacks import FreezeBackbone, UnfreezeAt
from lightning_vocab.data.loader import (
    Collation,
    ResumableLoader,
    evaluation_loader,
    training_loader,
)
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.vocabulary import ContinuedBPE, load_tokenizer, save_expansion
from tests.callbacks.modules import make_trainer
from tests.conftest import NEW_TEXTS, make_model, make_tokenizer
from tests.distributed.ranks import on_ranks

STEPS_PER_EPOCH = 3  # a data loader continues on other ranks at the end of an epoch
EPOCHS = 3


class Layout(NamedTuple):
    """Ranks that share the data, and ranks that divide the rows."""

    data: int
    rows: int


class Outcome(NamedTuple):
    """What a process holds after a fit: whole parameters, and whose state the optimizer keeps."""

    parameters: dict[str, Tensor]
    with_state: list[str]
    bits_per_byte: float


class Source(NamedTuple):
    """A base and its expansion."""

    base: str
    expansion: str
    folder: Path


def make_source(folder: Path, *, tied: bool) -> Source:
    base = folder / "base"
    make_model(tied=tied).save_pretrained(base)
    make_tokenizer().save_pretrained(base)
    grown = ContinuedBPE(num_new_tokens=12).extend(
        load_tokenizer(str(base)), NEW_TEXTS * 4, base_rows=300
    )
    expansion = save_expansion(grown, folder / "expansion")
    return Source(str(base), str(expansion), folder)


def make_loaders(layout: Layout) -> tuple[ResumableLoader, DataLoader[Any]]:
    """Rows to train on and rows to validate on; ranks that divide the rows get the same ones."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(312, (48, 12), generator=generator)
    rows: Any = [{"input_ids": row, "labels": row, "num_bytes": torch.tensor(20)} for row in ids]
    ranks = {
        "num_replicas": layout.data,
        "rank": int(os.environ.get("RANK", 0)) // layout.rows,
        "batch_size": 4 // layout.data,
    }
    collate: Collation = default_collate  # type: ignore[assignment]  # it takes any sequence
    train = training_loader(rows, collate, limit_batches=2 * STEPS_PER_EPOCH, **ranks)
    return train, evaluation_loader(rows[:8], collate, **ranks)


def fit(
    source: Source,
    layout: Layout | None,
    epochs: int,
    load: Path | None = None,
    save: Path | None = None,
    *callbacks: Callback,
    **options: Any,
) -> Outcome:
    """Train through all phases, accumulating and clipping; None is one process that holds all."""
    module = VocabExpansionModule(
        source.base,
        source.expansion,
        optimizer=partial(torch.optim.AdamW, fused=True),  # as in the recipes
        lr_new_rows=1e-2,
        lr_old_rows=1e-3,
        lr_backbone=1e-3,
    )
    if layout is not None:
        options["devices"] = layout.data * layout.rows
        options["strategy"] = ModelParallelStrategy(layout.data, layout.rows)
    trainer = make_trainer(
        source.folder,
        [FreezeBackbone(), UnfreezeAt(2, phase="embeddings"), UnfreezeAt(4), *callbacks],
        max_steps=epochs * STEPS_PER_EPOCH,
        limit_train_batches=2 * STEPS_PER_EPOCH,
        limit_val_batches=None,
        accumulate_grad_batches=2,
        gradient_clip_val=0.5,
        **options,
    )
    trainer.fit(module, *make_loaders(layout or Layout(1, 1)), ckpt_path=load)
    if save is not None:
        trainer.save_checkpoint(save)
    names = {id(p): name for name, p in module.named_parameters()}
    return Outcome(
        {name: whole(p.detach()) for name, p in module.named_parameters()},
        sorted(names[id(p)] for p in trainer.optimizers[0].state),
        float(trainer.callback_metrics["val/bits_per_byte/0"]),
    )


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def run(
    source: Source,
    layout: Layout,
    epochs: int,
    load: Path | None = None,
    save: Path | None = None,
    *callbacks: Callback,
) -> list[Outcome]:
    found = on_ranks(
        layout.data * layout.rows,
        lambda: tuple(fit(source, layout, epochs, load, save, *callbacks)),
    )
    return [Outcome(*each) for each in found]


def largest_error(found: Outcome, expected: Outcome) -> float:
    return max(
        float((found.parameters[name] - value).abs().max())
        for name, value in expected.parameters.items()
    )
