"""`lightning-vocab check`: exit status, table, JSON, and folders that cannot be read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_vocab.cli import main
from lightning_vocab.contract import load_folder
from tests.conftest import NEW_TEXTS
from tests.contract.cases import make_batch, write_base, write_cache, write_grown


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, its grown model, text, a batch and a cache."""
    datasets.disable_progress_bars()
    folder = tmp_path_factory.mktemp("place")
    write_grown(write_base(folder / "base", tied=False), folder / "grown")
    tokenizer = load_folder(folder / "grown").tokenizer
    write_cache(folder / "cache", tokenizer)
    save_file(make_batch(tokenizer), folder / "batch.safetensors")
    (folder / "new.txt").write_text("\n".join(NEW_TEXTS))
    return folder


def check(folder: Path, *words: str | Path) -> int:
    """The exit status."""
    try:
        main(["check", str(folder), *map(str, words)])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")


def findings_of(path: Path, status: str) -> set[tuple[int, str]]:
    report = json.loads(path.read_text())
    return {(f["item"], f["name"]) for f in report["findings"] if f["status"] == status}


def test_with_everything_given_everything_is_checked(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "findings.json"
    words: list[str | Path] = ["--base", place / "base", "--text", f"new={place / 'new.txt'}"]
    words += ["--batch", place / "batch.safetensors", "--cache", place / "cache"]
    words += ["--divisible_by", "64", "--tensor_parallel", "4", "--stop", "<|im_end|>"]
    words += ["--old_rows", "unchanged", "--json", report]
    assert check(place / "grown", *words) == 0
    assert findings_of(report, "fail") == findings_of(report, "warn") == set()
    assert findings_of(report, "skip") == {(12, "training of the new rows")}
    assert {item for item, _ in findings_of(report, "pass")} == set(range(1, 17))
    assert json.loads(report.read_text())["failed"] is False
    said = capsys.readouterr().out
    assert "Contract of" in said
    assert "0 fail" in said


def test_a_failure_is_exit_status_1(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "findings.json"
    assert check(place / "grown", "--divisible_by", "128", "--json", report) == 1
    assert findings_of(report, "fail") == {(14, "divisible rows")}
    assert json.loads(report.read_text())["failed"] is True
    assert "pad_to_multiple_of=128" in capsys.readouterr().out


def test_stop_strings_that_span_tokens_are_named(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(place / "grown", "--stop", "User:", "<|im_end|>") == 0
    said = capsys.readouterr().out
    assert "1 of 2 stop strings span tokens" in said
    assert "User: =" in said


def test_without_weights_nothing_is_said_of_them(place: Path, tmp_path: Path) -> None:
    report = tmp_path / "findings.json"
    assert check(place / "grown", "--weights", "false", "--json", report) == 0
    skipped = {name for _, name in findings_of(report, "skip")}
    assert {"heights", "tie", "padding_idx", "new rows", "chunked loss", "old rows"} <= skipped


def test_the_bundled_base_is_clean(tmp_path: Path) -> None:
    report = tmp_path / "findings.json"
    assert check(Path("demo"), "--base", "demo", "--json", report) == 0
    assert (16, "old rows") in findings_of(report, "pass")


def resize_head(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:304].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def tie_in_the_config_alone(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))


def poison(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"][306, 0] = torch.inf
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def unsuppress(folder: Path) -> None:
    config = json.loads((folder / "generation_config.json").read_text())
    del config["suppress_tokens"]
    (folder / "generation_config.json").write_text(json.dumps(config))


FAULTS: list[tuple[Callable[[Path], None], int]] = [
    (resize_head, 1),
    (tie_in_the_config_alone, 7),
    (poison, 12),
    (unsuppress, 14),
]


@pytest.mark.parametrize(("spoil", "item"), FAULTS, ids=lambda each: getattr(each, "__name__", ""))
def test_a_fault_in_the_files_fails_its_item(
    spoil: Callable[[Path], None], item: int, place: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(place / "grown", tmp_path / "spoilt")
    spoil(folder)
    report = tmp_path / "findings.json"
    assert check(folder, "--base", place / "base", "--json", report) == 1
    assert {number for number, _ in findings_of(report, "fail")} == {item}


def edit(name: str, **changes: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        data = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(data | changes))

    return spoil


@pytest.mark.parametrize("config", [321, 304])
def test_a_config_of_other_heights_than_the_weights_fails_the_rows_alone(
    config: int, place: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(place / "grown", tmp_path / "spoilt")
    edit("config.json", vocab_size=config)(folder)
    report = tmp_path / "findings.json"
    assert check(folder, "--base", place / "base", "--json", report) == 1
    assert findings_of(report, "fail") == {(1, "heights")}
    assert {(14, "padding rows"), (14, "divisible rows")} <= findings_of(report, "skip")


def test_a_shorter_context_fails_without_any_text(place: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(place / "grown", tmp_path / "spoilt")
    edit("config.json", max_position_embeddings=64)(folder)
    edit("tokenizer_config.json", model_max_length=128)(folder)
    report = tmp_path / "findings.json"
    assert check(folder, "--base", place / "base", "--json", report) == 1
    context = (9, "effective context")
    assert findings_of(report, "fail") == {context}
    assert context in findings_of(report, "warn") & findings_of(report, "skip")


def test_a_tied_folder_whose_config_says_untied_fails_the_tie(tmp_path: Path) -> None:
    write_grown(write_base(tmp_path / "base", tied=True), tmp_path / "grown")
    edit("config.json", tie_word_embeddings=False)(tmp_path / "grown")
    report = tmp_path / "findings.json"
    assert check(tmp_path / "grown", "--base", tmp_path / "base", "--json", report) == 1
    assert findings_of(report, "fail") == {(7, "tie")}
    (found,) = (f for f in json.loads(report.read_text())["findings"] if f["status"] == "fail")
    assert "tie_word_embeddings=false" in found["found"]


def cut(name: str, share: float = 0.5) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return spoil


def merge_of_no_token(folder: Path) -> None:
    data: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text())
    data["model"]["merges"].append(["no", "token"])
    (folder / "tokenizer.json").write_text(json.dumps(data))


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "tokenizer": (cut("tokenizer.json"), "No tokenizer could be read from"),
    "merge": (merge_of_no_token, "No tokenizer could be read from"),
    "config": (cut("config.json"), "config.json' is not a valid JSON file"),
    "generation": (cut("generation_config.json"), "generation_config.json"),
    "weights": (cut("model.safetensors"), "cannot be loaded"),
    "header": (cut("model.safetensors", 0.001), "cannot be loaded"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "and no config.json"),
    "manifest": (cut("vocab_expansion.json"), "vocab_expansion.json"),
    "nothing": (lambda folder: shutil.rmtree(folder), "Expected a folder with a tokenizer"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_folder_that_cannot_be_read_is_a_line_and_status_2(
    name: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, message = BROKEN[name]
    folder = shutil.copytree(place / "grown", tmp_path / "broken")
    spoil(folder)
    assert check(folder) == 2
    said = capsys.readouterr().err
    assert said.startswith("lightning-vocab check: error: ")
    assert message in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch", "none.safetensors"], "There is no batch"),
        (["--batch", "LICENSE"], "is no safetensors file"),
        (["--cache", "nowhere"], "is not a folder"),
        (["--expansion", "tests"], "has no vocab_expansion.json"),
        (["--base", "nowhere"], "neither"),
        (["--json", "tests"], "is a folder"),
        (["--batch_size", "0"], "at least 1"),
        (["--memory_gib", "-1"], "memory_gib above 0"),
    ],
)
def test_what_is_given_wrong_is_said(
    words: list[str],
    message: str,
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    assert check(place / "grown", *words) == 2
    assert message in capsys.readouterr().err


def test_help_explains_statuses_and_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["check", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for words in ("pass, warn", "exit status is 1 if anything fails", "--divisible_by 64"):
        assert words in said
