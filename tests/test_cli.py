from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_vocab.cli import main
from lightning_vocab.module import VocabExpansionModule
from tests.conftest import NEW_TEXTS, TEXTS


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a text to train on and one to validate on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lightning-vocab"])  # main(args) is called, not the shell
    for name, texts in (("train", NEW_TEXTS * 20), ("new", NEW_TEXTS), ("old", TEXTS)):
        lines = [json.dumps({"text": text}) for text in texts]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def arguments(base: str, **changes: Any) -> list[str]:
    options: dict[str, Any] = {
        "trainer.accelerator": "cpu",
        "trainer.max_steps": 4,
        "trainer.enable_progress_bar": False,
        "trainer.enable_model_summary": False,
        "trainer.logger": False,
        "model.base": base,
        "model.expansion_dir": "expansion",
        "data.extender": "lightning_vocab.vocabulary.ContinuedBPE",
        "data.extender.num_new_tokens": 12,
        "data.train": "train.jsonl",
        "data.val": '{"new": "new.jsonl", "old": "old.jsonl"}',
        "data.test": '{"new": "new.jsonl"}',
        "data.predict": '["zebra quartz", "the cat"]',
        "data.block_size": 16,
        "data.batch_size": 2,
        "data.cache_dir": "cache",
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    return [f"--{key}={value}" for key, value in options.items()]


def callback(name: str, **options: Any) -> list[str]:
    lines = [f"--trainer.callbacks+=lightning_vocab.callbacks.{name}"]
    return lines + [f"--trainer.callbacks.{key}={value}" for key, value in options.items()]


def test_fit_builds_the_expansion_trains_in_two_stages_reports_and_exports(
    tied_folder: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(
        [
            "fit",
            *arguments(tied_folder),
            *callback("FreezeBackbone"),
            *callback("UnfreezeAt", step=2),
            *callback("ExpansionReport", path="report.json"),
            *callback("ExportHuggingFace", path="export"),
        ]
    )
    rows = {row["name"]: row for row in json.loads((folder / "report.json").read_text())}
    assert rows["tokens per byte, new"]["change"] < -0.25
    assert rows["bits per byte, old"]["before"] > 0
    printed = capsys.readouterr().out
    assert "Vocabulary expansion: before and after" in printed
    tokenizer = AutoTokenizer.from_pretrained("export")
    model: Any = AutoModelForCausalLM.from_pretrained("export")
    assert len(tokenizer) == 312 == model.get_input_embeddings().weight.shape[0]


@pytest.mark.slow
def test_the_report_says_before_what_the_base_itself_scores(tied_folder: str, folder: Path) -> None:
    main(["fit", *arguments(tied_folder), *callback("ExpansionReport", path="report.json")])
    rows = {row["name"]: row for row in json.loads((folder / "report.json").read_text())}
    model = AutoModelForCausalLM.from_pretrained(tied_folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(tied_folder)
    nats = num_bytes = 0.0
    for text in TEXTS:
        ids = [tokenizer.bos_token_id, *tokenizer(text).input_ids]
        # Windows of 16 tokens of which later ones repeat 4 as context, as the data module cuts.
        start, stop = 0, min(16, len(ids))
        while True:
            first = 1 if start == 0 else 4
            window = torch.tensor([ids[start:stop]])
            with torch.no_grad():
                scores = model(window).logits[0, :-1].log_softmax(-1)
            target = window[0, 1:, None]
            nats -= float(scores.gather(1, target)[first - 1 :].sum())
            if stop == len(ids):
                break
            start = stop - 4
            stop = min(start + 16, len(ids))
        num_bytes += len(text.encode())
    expected = nats / num_bytes / torch.tensor(2.0).log().item()
    assert rows["bits per byte, old"]["before"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_validate_test_and_predict_run_on_the_same_arguments(
    tied_folder: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(tied_folder, model__max_new_tokens=4)
    main(["validate", *given])
    main(["test", *given])
    main(["predict", *given])
    printed = capsys.readouterr().out
    assert "val/bits_per_byte/old" in printed
    assert "test/bits_per_byte/new" in printed
    assert printed.count("continuation") == 2


@pytest.mark.slow
def test_export_writes_a_plain_folder_from_a_checkpoint(tied_folder: str, folder: Path) -> None:
    main(["fit", *arguments(tied_folder), "--trainer.default_root_dir=run"])
    (checkpoint,) = (folder / "run").rglob("*.ckpt")
    main(["export", str(checkpoint), "out"])
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    exported: Any = AutoModelForCausalLM.from_pretrained("out")
    matrix = exported.get_input_embeddings().weight
    assert torch.equal(matrix[300:], state["model.model.embed_tokens.rows.new"])
    with pytest.raises(SystemExit, match="2"):
        main(["export", str(checkpoint), "out"])
    main(["export", str(checkpoint), "out", "--overwrite=true"])


@pytest.mark.slow
def test_the_command_line_wins_over_the_hyperparameters_of_a_checkpoint(
    tied_folder: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = "--trainer.default_root_dir=run"
    main(["fit", *arguments(tied_folder, model__lr_new_rows=0.5), root])
    (checkpoint,) = (folder / "run").rglob("*.ckpt")
    seen: list[tuple[int, float, dict[str, float]]] = []

    def note(module: VocabExpansionModule) -> None:
        rates = {group["name"]: group["lr"] for group in module.trainer.optimizers[0].param_groups}
        seen.append((module.trainer.global_step, module.hparams["lr_new_rows"], rates))

    monkeypatch.setattr(VocabExpansionModule, "on_train_end", note, raising=False)
    resumed = arguments(tied_folder, model__lr_new_rows=0.25, **{"trainer__max_steps": 6})
    main(["fit", *resumed, root, f"--ckpt_path={checkpoint}"])
    ((step, hyperparameter, rates),) = seen
    assert step == 6
    assert hyperparameter == 0.25
    assert rates["new_rows"] == 0.25


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model__base": "no/such/folder"}, (ValueError, OSError), "no/such/folder"),
        ({"data__train": "nothing.jsonl"}, (ValueError, OSError), "nothing.jsonl"),
        ({"data__extender.num_new_tokens": 100_000}, ValueError, r"\d+"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(
    tied_folder: str, folder: Path, change: dict[str, Any], error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        main(["fit", *arguments(tied_folder, **change), *callback("ExportHuggingFace", path="out")])
    assert not (folder / "expansion").exists()
    assert not (folder / "out").exists()


def test_zero_new_tokens_are_refused_while_arguments_are_read(
    tied_folder: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((ValueError, SystemExit)) as caught:
        main(["fit", *arguments(tied_folder, **{"data__extender.num_new_tokens": 0})])
    assert "num_new_tokens" in str(caught.value) + capsys.readouterr().err
    assert not (folder / "expansion").exists()


def test_help_names_every_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("fit", "validate", "test", "predict", "export"))


def test_help_of_a_command_is_the_docstrings(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    assert "Where the expansion folder is now" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    assert "Learning rate of the new rows" in capsys.readouterr().out
