"""A small file of pairs, and what reads it and trains on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from lightning_vocab.grounding import GroundingDataModule
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.rows import find_split
from tests.quiet import quiet_trainer

PAIRS: list[dict[str, Any]] = [
    {"token": "<fig>", "description": "a tree of the text"},
    {"token": ["<a_1>", "<b_2>"], "description": "the cat and the dog"},
    {"token": ["<a_1>", "<b_7>"], "description": "the log"},
    {"token": "<fig>", "description": "the mat"},
]
NEW = ["<fig>", "<a_1>", "<b_2>", "<b_7>"]


def written(folder: Path, rows: list[dict[str, Any]]) -> str:
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


def module_for(folder: Path, base: str, **options: Any) -> GroundingDataModule:
    """A data module over `PAIRS`, which lie in the folder unless other pairs do."""
    if not (folder / "pairs.jsonl").exists():
        written(folder, PAIRS)
    arguments: dict[str, Any] = {
        "pairs": str(folder / "pairs.jsonl"),
        "base": base,
        "expansion_dir": str(folder / "expansion"),
        "batch_size": 4,
        "block_size": 64,
        "cache_dir": str(folder / "cache"),
    }
    return GroundingDataModule(**{**arguments, **options})


def prepared(folder: Path, base: str, **options: Any) -> GroundingDataModule:
    data = module_for(folder, base, **options)
    data.prepare_data()
    data.setup("fit")
    return data


def trainer(folder: Path, **options: Any) -> Trainer:
    callbacks = options.pop("callbacks", ())
    return quiet_trainer(folder, callbacks, **{"limit_val_batches": 0, **options})


def split_rows(module: VocabExpansionModule) -> tuple[Any, Any]:
    split = find_split(module.language_model)
    assert split is not None
    return split[0].rows, split[1].rows
