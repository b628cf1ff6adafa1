"""`lightning-vocab ground` from the command line to an exported model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_vocab.cli import main


def test_ground_teaches_new_rows_and_writes_a_plain_folder(
    tied_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lightning-vocab"])  # main(args) is called, not the shell
    pairs = [{"token": f"<item_{n}>", "description": f"the {n}"} for n in ("cat", "dog", "log")]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    options = {
        "trainer.accelerator": "cpu",
        "trainer.max_epochs": 2,
        "trainer.limit_val_batches": 0,
        "trainer.enable_progress_bar": False,
        "trainer.enable_model_summary": False,
        "trainer.default_root_dir": "run",
        "model.base": tied_folder,
        "model.expansion_dir": "expansion",
        "data.pairs": "pairs.jsonl",
        "data.batch_size": 4,
        "data.cache_dir": "cache",
    }
    main(
        [
            "ground",
            *(f"--{key}={value}" for key, value in options.items()),
            "--trainer.callbacks+=lightning_vocab.callbacks.FreezeBackbone",
            "--trainer.callbacks+=lightning_vocab.callbacks.ExportHuggingFace",
            "--trainer.callbacks.path=export",
        ]
    )
    tokenizer = AutoTokenizer.from_pretrained("export")
    assert tokenizer.tokenize("a<item_dog>")[1:] == ["<item_dog>"]
    model: Any = AutoModelForCausalLM.from_pretrained("export")
    base: Any = AutoModelForCausalLM.from_pretrained(tied_folder)
    matrix, old = (each.get_input_embeddings().weight for each in (model, base))
    assert matrix.shape[0] == 303
    assert torch.equal(matrix[:300], old)
    (checkpoint,) = (tmp_path / "run").rglob("*.ckpt")
    hparams = torch.load(checkpoint, weights_only=True)["datamodule_hyper_parameters"]
    assert hparams["pairs"] == "pairs.jsonl"
