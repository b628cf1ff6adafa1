"""The contract at the start of a fit: it stops a run that is amiss, and leaves one that is not."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from typing_extensions import override

from lightning_vocab.callbacks.contract import ContractCheck
from lightning_vocab.contract import Finding
from lightning_vocab.data.cache import RowCache
from lightning_vocab.datamodule import VocabDataModule
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.vocabulary import ContinuedBPE
from tests.callbacks.modules import PicoModule, SaveAt, is_same, make_trainer
from tests.conftest import NEW_TEXTS, TEXTS


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text, and the folders that the runs share."""
    datasets.disable_progress_bars()
    folder = tmp_path_factory.mktemp("place")
    (folder / "train.txt").write_text("\n".join(NEW_TEXTS * 8))
    (folder / "old.txt").write_text("\n".join(TEXTS[:2]))
    return folder


def make_run(base: str, place: Path, name: str = "grown") -> tuple[Any, VocabDataModule]:
    folder = str(place / name)
    data = VocabDataModule(
        base=base,
        expansion_dir=folder,
        extender=ContinuedBPE(num_new_tokens=8 if name == "grown" else 6),
        train=str(place / "train.txt"),
        val={"old": str(place / "old.txt")},
        block_size=16,
        batch_size=2,
        cache_dir=str(place / "cache"),
    )
    return VocabExpansionModule(base=base, expansion_dir=folder), data


def fit(root: Path, base: str, place: Path, *callbacks: Callback, **options: Any) -> Any:
    module, data = make_run(base, place)
    make_trainer(root, callbacks, max_steps=3, **options).fit(module, datamodule=data)
    return module.state_dict()


def of(findings: list[Finding], status: str) -> dict[str, str]:
    return {each.name: each.found for each in findings if each.status == status}


class Watch(ContractCheck):
    """Compares what the check must leave alone, before and after it."""

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        before = torch.get_rng_state(), [part.training for part in pl_module.modules()]
        super().on_fit_start(trainer, pl_module)
        after = torch.get_rng_state(), [part.training for part in pl_module.modules()]
        assert torch.equal(before[0], after[0])
        assert before[1] == after[1]


@pytest.mark.slow
def test_a_run_is_bit_equal_with_and_without_the_check(
    tied_folder: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check = Watch(divisible_by=4)
    runs = [fit(tmp_path, tied_folder, place, *callbacks) for callbacks in ([check], [])]
    assert is_same(*runs)
    assert not of(check.findings, "fail")
    # Everything that can be judged before the training is judged, on the run's own data.
    assert set(of(check.findings, "skip")) == {"training of the new rows", "stop strings"}
    passed = of(check.findings, "pass")
    assert passed["old rows"] == "as in the base, bit for bit: 300 old rows"
    assert passed["cached data"] == "rows cut with this tokenizer: 1 source"
    assert "train" in passed["effective context"]
    assert "chunks of 384" in passed["logits memory"]


def test_a_failure_stops_the_run_before_its_first_step(
    tied_folder: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module, data = make_run(tied_folder, place)
    trainer = make_trainer(tmp_path, [ContractCheck(divisible_by=64)], max_steps=3)
    with pytest.raises(MisconfigurationException, match=r"14 divisible rows: 308 rows .* 64 → "):
        trainer.fit(module, datamodule=data)
    assert trainer.global_step == 0
    assert "divisible" in capsys.readouterr().out


@pytest.mark.slow
def test_a_failure_is_only_shown_where_it_shall_not_stop_the_run(
    tied_folder: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check = ContractCheck(divisible_by=64, raise_on_fail=False)
    fit(tmp_path, tied_folder, place, check)
    assert of(check.findings, "fail").keys() == {"divisible rows"}
    assert "fail" in capsys.readouterr().out


@pytest.mark.slow
def test_text_that_another_tokenizer_cut_is_found(
    tied_folder: str, place: Path, tmp_path: Path
) -> None:
    module, _ = make_run(tied_folder, place)
    _, other = make_run(tied_folder, place, "other")
    fit(tmp_path, tied_folder, place)  # builds the module's expansion folder
    trainer = make_trainer(tmp_path, [ContractCheck()], max_steps=3)
    # A cache of its own: in the common one are the rows of the module's tokenizer, too.
    other.plan = replace(other.plan, cache=RowCache(tmp_path / "cache"))
    with pytest.raises(MisconfigurationException, match="15 cached data"):
        trainer.fit(module, datamodule=other)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before")
def test_a_resumed_run_does_not_take_trained_rows_for_changed_ones(
    tied_folder: str, place: Path, tmp_path: Path
) -> None:
    path, check = tmp_path / "stopped.ckpt", ContractCheck()
    fit(tmp_path, tied_folder, place, SaveAt(path, 2))
    module, data = make_run(tied_folder, place)
    trainer = make_trainer(tmp_path, [check], max_steps=3)
    trainer.fit(module, datamodule=data, ckpt_path=str(path))
    assert "old rows" in of(check.findings, "skip")
    assert not of(check.findings, "warn")


def test_another_kind_of_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match=r"PicoModule: call .*check_contract"):
        make_trainer(tmp_path, [ContractCheck()]).fit(PicoModule())


class Tell(ContractCheck):
    """Writes what each rank heard; a rank that stops ends the others before they could."""

    def __init__(self, folder: Path) -> None:
        super().__init__(divisible_by=64)
        self.folder = folder

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        try:
            super().on_fit_start(trainer, pl_module)
        except MisconfigurationException as error:
            said = {"error": str(error), "findings": [f.to_dict() for f in self.findings]}
            (self.folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(said))
            trainer.strategy.barrier()
            raise


@pytest.mark.slow
@pytest.mark.ddp
def test_all_ranks_stop_together(tied_folder: str, place: Path, tmp_path: Path) -> None:
    strategy = DDPStrategy(start_method="fork", timeout=timedelta(seconds=30))
    options: dict[str, Any] = {"devices": 2, "strategy": strategy}
    with pytest.raises(Exception, match="The contract is broken"):
        fit(tmp_path, tied_folder, place, Tell(tmp_path), **options)
    told = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert told[0] == told[1]
    assert len(told[0]["findings"]) > 20
