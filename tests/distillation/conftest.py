"""Corpora made by hand, and a run of the whole stage on the pico model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from lightning.pytorch import Callback, Trainer

from lightning_vocab.callbacks import FreezeBackbone
from lightning_vocab.distillation import DistillationDataModule, DistillationModule
from lightning_vocab.distillation.stream import TokenStream
from lightning_vocab.vocabulary import ContinuedBPE, NewToken, VocabularyExpansion
from tests.conftest import NEW_TEXTS, TEXTS
from tests.quiet import quiet_trainer

STEPS = 8


@pytest.fixture(autouse=True)
def _no_bars() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def make_stream(
    *chunks: Sequence[Sequence[int]], starts_documents: bool = False, num_sources: int = 1
) -> TokenStream:
    """Documents in chunks as they would be stored; the first source has all chunks but the last."""
    features = datasets.Features({"input_ids": datasets.List(datasets.Value("int32"))})
    stored = [
        datasets.Dataset.from_dict({"input_ids": [list(ids) for ids in chunk]}, features=features)
        for chunk in chunks
    ]
    if num_sources == 1:
        stored = [datasets.concatenate_datasets(stored)]
    return TokenStream(stored, starts_documents=starts_documents)


def make_expansion(*pieces: tuple[int, ...], base_rows: int = 10) -> VocabularyExpansion:
    """New tokens behind ``base_rows`` base ids, by their pieces."""
    tokens = tuple(
        NewToken(base_rows + place, f"new{place}", f"new{place}", "text", each)
        for place, each in enumerate(pieces)
    )
    rows = base_rows + len(tokens)
    return VocabularyExpansion(base_rows, base_rows, rows, tokens, "a", "b", {}, {})


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A folder with text: ``train`` uses every one of the twelve tokens, fragments of words too."""
    fragments = "br\nebr\ngl\nju\ntz\n"
    for name, texts in (("train", (*NEW_TEXTS * 15, *TEXTS, *[fragments] * 5)), ("new", NEW_TEXTS)):
        write_lines(tmp_path / f"{name}.jsonl", texts)
    return tmp_path


def write_lines(path: Path, texts: Sequence[str]) -> None:
    path.write_text("".join(json.dumps({"text": each}) + "\n" for each in texts), encoding="utf-8")


def make_data(base: str, folder: Path, **changes: Any) -> DistillationDataModule:
    options: dict[str, Any] = {
        "base": base,
        "expansion_dir": str(folder / "expansion"),
        "extender": ContinuedBPE(num_new_tokens=12),
        "train": str(folder / "train.jsonl"),
        "val": {"new": str(folder / "new.jsonl")},
        "extend_on": str(folder / "new.jsonl"),
        "num_snippets": 10,
        "snippet_length": 12,
        "block_size": 48,
        "batch_size": 8,
        "cache_dir": str(folder / "cache"),
    }
    return DistillationDataModule(**{**options, **changes})


def make_module(base: str, folder: Path, **changes: Any) -> DistillationModule:
    options: dict[str, Any] = {
        "base": base,
        "expansion_dir": str(folder / "expansion"),
        "optimizer": lambda groups: torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1),
        "lr_new_rows": 0.02,
    }
    return DistillationModule(**{**options, **changes})


def make_trainer(folder: Path, *callbacks: Callback, **changes: Any) -> Trainer:
    options = {"max_steps": STEPS, "max_epochs": -1, "limit_val_batches": 0, **changes}
    return quiet_trainer(folder, [FreezeBackbone(), *callbacks], **options)
