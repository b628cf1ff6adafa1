from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_vocab.cli import main
from tests.conftest import NEW_TEXTS, case

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
# A recipe with a script of its own has a test file of its own, too.
YAMLS = sorted(p for p in RECIPES.glob("*.yaml") if not p.with_suffix(".py").is_file())
COMMANDS = {"grounding.yaml": "ground", "distillation.yaml": "distill"}  # the others: fit


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lightning-vocab"])  # main(args) is called, not the shell
    lines = [json.dumps({"text": text}) for text in NEW_TEXTS * 20]
    (tmp_path / "text.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def small(name: str, base: str, grown: bool) -> list[str]:
    """Overrides that leave a recipe's shape and make it tiny."""
    options: dict[str, Any] = {
        "trainer.accelerator": "cpu",
        "trainer.precision": "32-true",
        "trainer.max_steps": 3,
        "trainer.val_check_interval": 3,
        "trainer.accumulate_grad_batches": 1,
        "trainer.enable_progress_bar": False,
        "trainer.enable_model_summary": False,
        "model.base": base,
        "model.dtype": "float32",
        "data.train": "text.jsonl",
        "data.val": '{"new_domain": "text.jsonl"}',
        "data.block_size": 16,
        "data.batch_size": 2,
        "data.num_proc": 1,
        "data.cache_dir": "cache",
    }
    if name == "grounding.yaml":
        for option in ("train", "num_proc", "block_size"):
            del options[f"data.{option}"]
        options["data.pairs"] = str(RECIPES / "grounding_pairs.jsonl")
    elif grown:
        options |= {
            "data.extender": "lightning_vocab.vocabulary.ContinuedBPE",
            "data.extender.num_new_tokens": 12,
            "data.extender.min_frequency": 2,
            "data.extender.scripts": "null",
        }
    return [f"--{key}={value}" for key, value in options.items()]


@pytest.mark.filterwarnings("ignore:GPU available but not used")
@pytest.mark.filterwarnings("ignore:.* occur fewer than 4 times in the training text")
@pytest.mark.slow
@pytest.mark.parametrize("name", [path.name for path in YAMLS])
def test_every_recipe_runs_through_the_real_command_line(
    name: str, tied_folder: str, folder: Path
) -> None:
    grown = "expansion_dir" in yaml.safe_load((RECIPES / name).read_text())["model"]
    command = COMMANDS.get(name, "fit")
    main([command, "--config", str(RECIPES / name), *small(name, tied_folder, grown)])
    (export,) = (folder / "runs").rglob("export")
    assert (export / "model.safetensors").is_file()
    assert (export / "vocab_expansion.json").is_file() == grown


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.name)
def test_every_recipe_says_its_command_seed_rates_and_decay(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    header = [line for line in text.splitlines() if line.startswith("#")]
    command = COMMANDS.get(path.name, "fit")
    assert f"lightning-vocab {command} --config recipes/{path.name}" in text
    assert 2 <= len(list(_leading(text))) <= 8, header
    assert isinstance(config["seed_everything"], int)
    trained = "new_rows" if command == "distill" else "backbone"
    decayed = "rows" if command == "distill" else "backbone"
    assert {f"lr_{trained}", f"weight_decay_{decayed}"} <= set(config["model"])


def _leading(text: str) -> list[str]:
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line)
    return lines


def test_the_callbacks_recipe_leaves_old_rows_bit_equal() -> None:
    path = RECIPES / "attach_callbacks.py"
    spec = importlib.util.spec_from_file_location("attach_callbacks", path)
    assert spec is not None
    assert spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    assert recipe.main(max_steps=6, root="run") == 0.0


@pytest.mark.parametrize(
    "name", [case("quickstart.yaml", quick=True), case("two_stage.yaml", quick=False)]
)
def test_the_vocabulary_grows_on_the_text_that_the_user_names(
    name: str, tied_folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"--model.base={tied_folder}", "--data.train=text.jsonl"]
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(RECIPES / name), *options, "--print_config"])
    data = yaml.safe_load(capsys.readouterr().out)["data"]
    assert data["train"] == "text.jsonl"
    assert data["extend_on"] is None
