from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lightning_vocab.cli import main
from tests.conftest import NEW_TEXTS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs_and_exports(
    tied_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    lines = [json.dumps({"text": text}) for text in NEW_TEXTS * 20]
    (tmp_path / "text.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    tiny = {
        '"demo"': repr(tied_folder),
        '"demo:code"': '"text.jsonl"',
        '"demo:english"': '"text.jsonl"',
        "ContinuedBPE(num_new_tokens=300)": "ContinuedBPE(num_new_tokens=12), block_size=64",
        "max_steps=200": "max_steps=4, logger=False, enable_progress_bar=False",
        "step=100": "step=2",
    }
    for long, short in tiny.items():
        assert long in example, f"the example has no {long}"
        example = example.replace(long, short)
    exec(compile(example, "README.md", "exec"), {})
    assert (tmp_path / "runs/example/export/model.safetensors").is_file()


def test_links_lead_to_files() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_two_commands_name_what_exists(capsys: pytest.CaptureFixture[str]) -> None:
    assert "pip install -e . && lightning-vocab fit --config recipes/quickstart.yaml" in README
    assert "pip install -e '.[test]' && pytest" in README
    with pytest.raises(SystemExit) as ended:
        main(["export", "--help"])
    assert ended.value.code == 0
    assert "checkpoint" in capsys.readouterr().out
