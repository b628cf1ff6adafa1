"""A recipe on the pico base, and an initializer that is bad on purpose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor
from typing_extensions import override

from lightning_vocab.initializers import Initializer, RowContext, SubwordMean
from tests.conftest import NEW_TEXTS, TEXTS


class Loud(Initializer):
    """Rows a hundred times too long: their tokens are predicted everywhere."""

    @override
    def rows(self, context: RowContext) -> tuple[Tensor, Tensor | None]:
        inputs, outputs = SubwordMean().rows(context)
        return inputs * 100, None if outputs is None else outputs * 100


LOUD = f"{__name__}.Loud"


def write_texts(folder: Path) -> None:
    """``train.jsonl``, and ``new.jsonl`` and ``old.jsonl`` of six documents each."""
    new = [f"{text} {more}" for text in NEW_TEXTS for more in ("quartz vivid", "zebra jungle")]
    old = [f"{text} {more}" for text in TEXTS for more in ("the cat", "the dog sat")]
    for name, texts in (("train", NEW_TEXTS * 20), ("new", new), ("old", old)):
        lines = [json.dumps({"text": text}) for text in texts]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def recipe(base: str, folder: Path, **changes: Any) -> dict[str, Any]:
    """A recipe with outputs of every kind; a change names its place with ``__`` between."""
    package = "lightning_vocab"
    config: dict[str, Any] = {
        "seed_everything": 3,
        "trainer": {
            "accelerator": "cpu",
            "max_steps": 400,
            "default_root_dir": str(folder / "root"),
            "callbacks": [
                {"class_path": f"{package}.callbacks.FreezeBackbone"},
                {"class_path": f"{package}.callbacks.UnfreezeAt", "init_args": {"step": 2}},
                {
                    "class_path": f"{package}.callbacks.ExpansionReport",
                    "init_args": {"path": str(folder / "report.json")},
                },
                {
                    "class_path": f"{package}.callbacks.ExportHuggingFace",
                    "init_args": {"path": str(folder / "export")},
                },
                {
                    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                    "init_args": {"dirpath": str(folder / "checkpoints"), "save_last": True},
                },
            ],
        },
        "model": {"base": base, "expansion_dir": str(folder / "expansion"), "lr_new_rows": 0.01},
        "data": {
            "extender": {
                "class_path": f"{package}.vocabulary.ContinuedBPE",
                "init_args": {"num_new_tokens": 12},
            },
            "train": str(folder / "train.jsonl"),
            "val": {"new": str(folder / "new.jsonl"), "old": str(folder / "old.jsonl")},
            "block_size": 16,
            "batch_size": 2,
            "cache_dir": str(folder / "cache"),
        },
    }
    for place, value in changes.items():
        *path, last = place.split("__")
        inner = config
        for name in path:
            inner = inner[name]
        inner[last] = value
    return config


def write_recipe(base: str, folder: Path, **changes: Any) -> Path:
    """The recipe as a file, with comments, and the texts that it names."""
    write_texts(folder)
    dumped = yaml.safe_dump(recipe(base, folder, **changes), sort_keys=False)
    path = folder / "recipe.yaml"
    path.write_text(f"# What this recipe is for.\n{dumped}# The end.\n", encoding="utf-8")
    return path
