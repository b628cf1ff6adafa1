from __future__ import annotations

import csv
import json
import math
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import DDPStrategy
from rich.console import Console

from lightning_vocab.callbacks import FreezeBackbone
from lightning_vocab.callbacks.grounding_report import GroundingReport
from lightning_vocab.datamodule import VocabDataModule
from lightning_vocab.grounding import GroundingDataModule, Templates, read_pairs
from lightning_vocab.grounding.diagnostics import measure_grounding
from lightning_vocab.grounding.judge import GroundingJudge
from lightning_vocab.initializers import Mean
from lightning_vocab.loss import NextTokenLoss
from lightning_vocab.module import VocabExpansionModule
from tests.callbacks.modules import make_trainer
from tests.conftest import TEXTS

NAMES = ["the cat sat", "a dog", "the log", "a mat", "the model", "a token", "text", "the tokens"]

pytestmark = [
    pytest.mark.filterwarnings("ignore:Text around"),
    pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero"),
]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    lines = [{"token": f"<{i}>", "description": name} for i, name in enumerate(NAMES)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(file)


def make_data(folder: Path, base: str, pairs: str) -> GroundingDataModule:
    return GroundingDataModule(
        pairs, base=base, expansion_dir=str(folder / "expansion"), batch_size=4
    )


def make_module(folder: Path, base: str, **options: Any) -> VocabExpansionModule:
    options.setdefault("expansion_dir", str(folder / "expansion"))
    return VocabExpansionModule(base=base, initializer=Mean(), lr_new_rows=1e-2, **options)


def fit(
    folder: Path,
    base: str,
    pairs: str,
    callbacks: list[Callback],
    *,
    data: LightningDataModule | None = None,
    ckpt_path: str | None = None,
    **options: Any,
) -> VocabExpansionModule:
    module = make_module(folder, base)
    trainer = make_trainer(folder, callbacks, limit_train_batches=1.0, **options)
    trainer.fit(module, datamodule=data or make_data(folder, base, pairs), ckpt_path=ckpt_path)
    return module


class Judging(Callback):
    """Judges on its own at the start and at the end."""

    def __init__(self) -> None:
        self.numbers: list[dict[str, float]] = []

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]  # set by fit(datamodule=...)
        self.judge = GroundingJudge(pl_module, data.pairs, data.templates)
        self.numbers.append(self.judge.measure().numbers)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.numbers.append(self.judge.measure().numbers)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one == pytest.approx(other, nan_ok=True)


def test_first_and_last_values_are_those_of_the_rows_then(
    base_folder: str, pairs: str, tmp_path: Path
) -> None:
    judging, report = Judging(), GroundingReport()
    module = fit(tmp_path, base_folder, pairs, [FreezeBackbone(), judging, report], max_steps=3)
    assert same(report.before, judging.numbers[0])
    assert same(report.after, judging.numbers[1])
    assert report.before != report.after
    is_tied = module.language_model.config.tie_word_embeddings
    assert ("rsa_words_pearson_output" in report.after) == (not is_tied)


@pytest.mark.slow
def test_the_reference_does_not_move_with_the_model(
    tied_folder: str, pairs: str, tmp_path: Path
) -> None:
    report = GroundingReport()
    module = fit(tmp_path, tied_folder, pairs, [report], max_steps=3)  # everything trains
    trained = GroundingJudge(module, read_pairs(pairs), Templates())
    space = report.state_dict()["space"]
    assert not torch.equal(trained.vectors, space)
    first = GroundingReport()
    fit(tmp_path, tied_folder, pairs, [first], max_steps=1)
    assert torch.equal(first.state_dict()["space"], space)


@pytest.mark.slow
def test_loggers_and_callback_metrics_get_both_measurements(
    tied_folder: str, pairs: str, tmp_path: Path
) -> None:
    logger = CSVLogger(str(tmp_path / "logs"), name="", version="")
    report = GroundingReport()
    fit(tmp_path, tied_folder, pairs, [report], max_steps=3, logger=logger, log_every_n_steps=1)
    with (tmp_path / "logs" / "metrics.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["grounding/retrieval_top1_share"]]
    assert [int(line["step"]) for line in lines] == [0, 3]
    for line, numbers in zip(lines, (report.before, report.after), strict=True):
        found = float(line["grounding/rsa_words_spearman_input"])
        assert found == pytest.approx(numbers["rsa_words_spearman_input"])


@pytest.mark.slow
def test_the_files_are_written_whole(tied_folder: str, pairs: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path, figure = tmp_path / "new" / "report.json", tmp_path / "new" / "figure.png"
    report = GroundingReport(path=str(path), figure=str(figure))
    fit(tmp_path, tied_folder, pairs, [report], max_steps=2)
    assert sorted(file.name for file in path.parent.iterdir()) == ["figure.png", "report.json"]
    found = json.loads(path.read_text())
    assert found["step"] == 2
    for numbers, written in ((report.before, found["before"]), (report.after, found["after"])):
        assert {k: v for k, v in numbers.items() if math.isfinite(v)} == {
            k: v for k, v in written.items() if v is not None
        }
    assert figure.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_the_loss_is_compared_with_the_models_own_before_tokens_are_ranked(
    tied_folder: str, pairs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def check(self: NextTokenLoss, batch: dict[str, torch.Tensor], agreed: Any = bool) -> bool:
        calls.append("check")
        return True

    def measure(*args: Any) -> Any:
        calls.append("measure")
        return measure_grounding(*args)

    monkeypatch.setattr(NextTokenLoss, "check", check)
    monkeypatch.setattr("lightning_vocab.grounding.judge.measure_grounding", measure)
    fit(tmp_path, tied_folder, pairs, [GroundingReport()], max_steps=1)
    assert calls == ["check", "measure", "measure"]


def test_the_table_says_both_and_the_old_rows(tied_folder: str, pairs: str, tmp_path: Path) -> None:
    report = GroundingReport()
    fit(tmp_path, tied_folder, pairs, [report], max_steps=1)
    console = Console(file=StringIO(), width=100)
    console.print(report.table())
    assert isinstance(console.file, StringIO)
    lines = {
        line.split("│")[1].strip(): line for line in console.file.getvalue().splitlines()[4:-1]
    }
    line = lines["effective rank input"]
    for key in ("effective_rank_new_input", "effective_rank_old_input"):
        assert f"{report.after[key]:.4f}" in line
    assert f"{report.before['effective_rank_new_input']:.4f}" in line
    assert "retrieval mean reciprocal rank" in lines
    assert not any("num" in name for name in lines)


@pytest.mark.slow
def test_a_later_fit_on_text_is_judged_by_a_file_of_pairs(
    tied_folder: str, pairs: str, tmp_path: Path
) -> None:
    make_data(tmp_path, tied_folder, pairs).prepare_data()
    text = tmp_path / "text.txt"
    text.write_text("\n".join(TEXTS[:2]) * 20)
    data = VocabDataModule(
        base=tied_folder,
        expansion_dir=str(tmp_path / "expansion"),
        train=str(text),
        block_size=16,
        batch_size=2,
        cache_dir=str(tmp_path / "cache"),
    )
    report = GroundingReport(pairs=pairs, to_tokens=["{description}: {tokens}"])
    fit(tmp_path, tied_folder, pairs, [report], data=data, max_steps=2)
    assert report.after["retrieval_num_descriptions"] == len(NAMES)
    data = VocabDataModule(**(dict(data.hparams)))
    with pytest.raises(MisconfigurationException, match="give pairs, a file"):
        fit(tmp_path, tied_folder, pairs, [GroundingReport()], data=data, max_steps=2)


def test_only_a_sample_of_many_pairs_is_judged(
    tied_folder: str, pairs: str, tmp_path: Path
) -> None:
    report = GroundingReport(max_pairs=5)
    fit(tmp_path, tied_folder, pairs, [report], max_steps=1)
    assert report.after["retrieval_num_descriptions"] == 5
    assert report.after["rsa_states_num_tokens_input"] == 5


@pytest.mark.slow
def test_tokens_of_one_description_are_judged_together_in_a_sample(
    tied_folder: str, tmp_path: Path
) -> None:
    file = tmp_path / "pairs.jsonl"
    rows = [{"token": f"<{number}>", "description": "the cat"} for number in range(10)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = []
    for max_pairs in (4000, 5):
        report = GroundingReport(max_pairs=max_pairs)
        fit(tmp_path, tied_folder, str(file), [report], max_steps=1)
        found.append((report.before, report.after))
    assert all(same(one, other) for one, other in zip(*found, strict=True))
    assert found[0][0]["retrieval_top1_share"] == 1.0  # all ten are right


def test_a_description_beyond_the_models_context_is_refused_before_any_step(
    tied_folder: str, pairs: str, tmp_path: Path
) -> None:
    long = tmp_path / "long.jsonl"
    rows = [{"token": f"<{number}>", "description": name} for number, name in enumerate(NAMES)]
    rows[0]["description"] = "the cat " * 80
    long.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r"at most 128 tokens .* got 1 longer row of 8"):
        fit(tmp_path, tied_folder, pairs, [GroundingReport(pairs=str(long))], max_steps=1)


def test_a_sample_of_two_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match="max_pairs=2"):
        GroundingReport(max_pairs=2)


def test_a_missing_file_of_pairs_is_named_before_any_step(
    tied_folder: str, pairs: str, tmp_path: Path
) -> None:
    report = GroundingReport(pairs=str(tmp_path / "none.jsonl"))
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl"):
        fit(tmp_path, tied_folder, pairs, [report], max_steps=1)


def test_two_reports_of_different_pairs_may_stand_in_one_trainer(pairs: str) -> None:
    reports = [GroundingReport(), GroundingReport(pairs=pairs)]
    Trainer(callbacks=[*reports], logger=False)  # refuses two of one state
    assert len({report.state_key for report in reports}) == 2


class WriteReport(Callback):
    """Writes what each rank has measured, for the parent process to compare."""

    def __init__(self, report: GroundingReport, folder: Path) -> None:
        self.report, self.folder = report, folder

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        path = self.folder / f"rank{trainer.global_rank}.json"
        path.write_text(json.dumps([self.report.before, self.report.after]))


@pytest.mark.slow
@pytest.mark.ddp
def test_both_ranks_measure_the_same_and_one_writes(
    tied_folder: str, pairs: str, tmp_path: Path
) -> None:
    report = GroundingReport(path=str(tmp_path / "out" / "report.json"))
    strategy = DDPStrategy(start_method="fork", timeout=timedelta(seconds=60))
    callbacks = [FreezeBackbone(), report, WriteReport(report, tmp_path)]
    fit(tmp_path, tied_folder, pairs, callbacks, max_steps=2, devices=2, strategy=strategy)
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert all(same(one, other) for one, other in zip(first, second, strict=True))
    assert json.loads((tmp_path / "out" / "report.json").read_text())["step"] == 2
