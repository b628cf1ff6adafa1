"""Training on text that is tokenised while it is read, and what ranks do once for all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException
from typing_extensions import override

from lightning_vocab.callbacks.contract import ContractCheck
from lightning_vocab.callbacks.token_frequency import NewTokenFrequency
from lightning_vocab.data import plan as plan_module
from lightning_vocab.data.sources import TextSource
from lightning_vocab.datamodule import VocabDataModule
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.vocabulary import ContinuedBPE
from lightning_vocab.vocabulary.measuring.fertility import compare_fertility
from tests.conftest import NEW_TEXTS, TEXTS
from tests.quiet import Recorder, quiet_trainer


@pytest.fixture(autouse=True)
def _no_bars() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def make_data(base: str, folder: Path, **changes: Any) -> VocabDataModule:
    (folder / "text").mkdir(exist_ok=True)
    for number, text in enumerate(NEW_TEXTS):
        (folder / "text" / f"{number}.txt").write_text("\n".join([text] * 8))
    (folder / "old.txt").write_text("\n".join(TEXTS[:2]))
    options: dict[str, Any] = {
        "base": base,
        "expansion_dir": str(folder / "grown"),
        "extender": ContinuedBPE(num_new_tokens=8),
        "train": str(folder / "text"),
        "val": {"old": str(folder / "old.txt")},
        "block_size": 16,
        "batch_size": 2,
        "cache_dir": str(folder / "cache"),
        "streaming": True,
        **changes,
    }
    return VocabDataModule(**options)


def fit(data: VocabDataModule, folder: Path, *callbacks: Any, **options: Any) -> None:
    hparams = data.hparams
    module = VocabExpansionModule(base=hparams["base"], expansion_dir=hparams["expansion_dir"])
    quiet_trainer(folder, callbacks, **options).fit(module, datamodule=data)


@pytest.mark.slow
def test_run_grows_checks_and_trains_on_text_of_which_nothing_is_kept(
    tied_folder: str, tmp_path: Path
) -> None:
    data, check = make_data(tied_folder, tmp_path), ContractCheck()
    fit(data, tmp_path, check, max_steps=3)
    assert data.expanded is not None
    assert len(data.expanded.expansion.tokens) == 8
    assert data.fertility()["train"]["num_bytes"] == sum(8 * len(text) for text in NEW_TEXTS)
    status = {each.name: each.status for each in check.findings}
    assert "fail" not in status.values()
    assert status["padding in labels"] == status["chunked loss"] == "pass"  # on a streamed batch
    assert status["cached data"] == "skip"
    cached = [place for place in (tmp_path / "cache").rglob("*.arrow") if "text" not in place.parts]
    assert len(cached) == 2  # the validation text, cut by the base and by the grown tokenizer
    kept = (tmp_path / "cache" / "text").rglob("*.arrow")
    assert all(NEW_TEXTS[0].encode() not in place.read_bytes() for place in kept)


@pytest.mark.slow
def test_text_that_is_streamed_may_be_validated_on(tied_folder: str, tmp_path: Path) -> None:
    text = str(tmp_path / "text")
    data = make_data(tied_folder, tmp_path, val={"same": text}, extend_on=text)
    data.prepare_data()
    data.setup()
    (loader,) = data.val_dataloader()
    scored = sum(int(batch["num_bytes"].sum()) for batch in loader)
    assert scored == sum(8 * len(each) for each in NEW_TEXTS)


def test_run_without_an_end_is_refused_before_anything_is_built(
    tied_folder: str, tmp_path: Path
) -> None:
    with pytest.raises(MisconfigurationException, match="no end: expected the Trainer's max_steps"):
        fit(make_data(tied_folder, tmp_path), tmp_path, max_epochs=2)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["old.txt", "text"]


def test_streamed_text_cannot_be_counted_before_the_run(tied_folder: str, tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="streamed text has none"):
        fit(make_data(tied_folder, tmp_path), tmp_path, NewTokenFrequency(), max_steps=1)


def test_buffer_of_no_document_is_refused(tied_folder: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="and shuffle_buffer of at least 1"):
        make_data(tied_folder, tmp_path, shuffle_buffer=0)


class Asks(Recorder):
    """Asks for the fertility on every rank."""

    @override
    def on_fit_start(self) -> None:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]  # set by `fit`
        told = data.fertility()
        assert self.trainer.strategy.broadcast(told) == told
        assert list(told) == ["train", "old"]

    @override
    def note(self, batch: Any) -> None:
        """Nothing is kept."""


class Forgetful(VocabDataModule):
    """Is prepared on a disk that the ranks do not see."""

    @override
    def prepare_data(self) -> None:
        super().prepare_data()
        for file in self.plan.cache.folder.glob("fertility-*.json"):
            file.unlink()


@pytest.mark.slow
@pytest.mark.ddp
@pytest.mark.parametrize(("kind", "times"), [(VocabDataModule, 1), (Forgetful, 2)])
def test_fertility_is_measured_by_one_process_and_told_to_the_others(
    tied_folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[VocabDataModule],
    times: int,
) -> None:
    measure = compare_fertility
    log = tmp_path / "measured.txt"

    def counted(*args: Any) -> Any:
        with log.open("a") as file:  # a line of each process, appended at once
            file.write(f"{os.getpid()}\n")
        return measure(*args)

    monkeypatch.setattr(plan_module, "compare_fertility", counted)
    values = dict(make_data(tied_folder, tmp_path, streaming=False).hparams)
    values["train"] = TextSource(str(tmp_path / "text"))
    data = kind(**values, extender=ContinuedBPE(num_new_tokens=8))
    two = quiet_trainer(tmp_path, devices=2, strategy="ddp_fork", max_steps=1, limit_val_batches=0)
    two.fit(Asks(), datamodule=data)
    lines = log.read_text().splitlines()
    assert len(lines) == 2 * times  # the training text and the validation text
    assert len(set(lines)) == 1
