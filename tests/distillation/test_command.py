from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from lightning_vocab.cli import main
from lightning_vocab.vocabulary import load_expansion

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "distillation.yaml"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*occur fewer than 4 times")
@pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec")
def test_the_recipe_runs_through_the_command_line(
    tied_folder: str, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(text)
    monkeypatch.setattr(sys, "argv", ["lightning-vocab"])  # main(args) is called, not the shell
    options = {
        "trainer.max_steps": 4,
        "trainer.val_check_interval": 2,
        "trainer.enable_progress_bar": "false",
        "model.base": tied_folder,
        "data.extender.num_new_tokens": 12,
        "data.train": "train.jsonl",
        "data.extend_on": "new.jsonl",
        "data.val": '{"new_domain": "new.jsonl"}',
        "data.block_size": 32,
        "data.batch_size": 2,
    }
    given = [f"--{name}={value}" for name, value in options.items()]
    main(["distill", "--config", str(RECIPE), *given])
    exported = text / "runs/distillation/export"
    model: Any = AutoModelForCausalLM.from_pretrained(exported)
    assert model.get_input_embeddings().weight.shape[0] == 312
    assert len(load_expansion(str(exported)).expansion.tokens) == 12
