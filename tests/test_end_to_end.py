"""Module, data module and callbacks together: what a run guarantees as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import SingleDeviceStrategy
from transformers import T5Config

from lightning_vocab.callbacks import (
    ContractCheck,
    EmbeddingSpectrumMonitor,
    ExpansionReport,
    FreezeBackbone,
    UnfreezeAt,
)
from lightning_vocab.datamodule import VocabDataModule
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.rows import find_split
from lightning_vocab.schedules import WarmupCosine
from lightning_vocab.vocabulary import ContinuedBPE
from tests.conftest import NEW_TEXTS, TEXTS, case, make_tokenizer
from tests.quiet import quiet_trainer

UNFREEZE, STEPS = 3, 7
UNTIED_IS_QUICK = pytest.mark.parametrize(
    "base_folder",
    [case(True, quick=False, id="tied"), case(False, quick=True, id="untied")],
    indirect=True,
)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    for name, texts in (("train", NEW_TEXTS * 15), ("new", NEW_TEXTS * 3), ("old", TEXTS)):
        lines = [json.dumps({"text": each}) for each in texts]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def make_module(base: str, text: Path) -> VocabExpansionModule:
    return VocabExpansionModule(
        base=base,
        expansion_dir=str(text / "expansion"),
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1),
        lr_scheduler=lambda optimizer: WarmupCosine(
            optimizer, total_steps=STEPS, warmup_steps=2, starts={"old_rows": UNFREEZE}
        ),
        lr_new_rows=0.02,
        lr_old_rows=0.01,
        lr_backbone=0.005,
        weight_decay_rows=0.1,
    )


def make_data(base: str, text: Path) -> VocabDataModule:
    return VocabDataModule(
        base=base,
        expansion_dir=str(text / "expansion"),
        extender=ContinuedBPE(num_new_tokens=12),
        train=str(text / "train.jsonl"),
        val={"new": str(text / "new.jsonl"), "old": str(text / "old.jsonl")},
        block_size=24,
        batch_size=2,
        cache_dir=str(text / "cache"),
    )


def make_trainer(root: Path, *callbacks: Callback, **changes: Any) -> Trainer:
    options: dict[str, Any] = {
        "max_steps": STEPS,
        "max_epochs": -1,
        "accumulate_grad_batches": 2,
        "gradient_clip_val": 0.5,
        "val_check_interval": 5,
        "check_val_every_n_epoch": None,
    }
    staged = [FreezeBackbone(), UnfreezeAt(step=UNFREEZE)]
    return quiet_trainer(root, [*staged, *callbacks], **(options | changes))


class EveryStep(ModelCheckpoint):
    """A checkpoint after each optimizer step."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)


@UNTIED_IS_QUICK
@pytest.mark.parametrize(
    "stop",
    [
        case(1, quick=False, id="before"),
        case(UNFREEZE, quick=True, id="at"),
        case(UNFREEZE + 2, quick=False, id="after"),
    ],
)
def test_a_resumed_run_is_bit_equal_to_the_uninterrupted_one(
    base_folder: str, text: Path, stop: int
) -> None:
    whole = make_module(base_folder, text)
    trainer = make_trainer(text, EveryStep(text / "steps"), enable_checkpointing=True)
    trainer.fit(whole, datamodule=make_data(base_folder, text))
    batches = trainer.num_training_batches
    assert (2 * stop) % batches != 0, "the stop should lie in the middle of an epoch"
    resumed = make_module(base_folder, text)
    again = make_trainer(text, EveryStep(text / "steps"), enable_checkpointing=True)
    again.fit(
        resumed,
        datamodule=make_data(base_folder, text),
        ckpt_path=text / "steps" / f"step={stop}.ckpt",
    )
    assert again.global_step == STEPS
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    first, second = (t.optimizers[0].state_dict() for t in (trainer, again))
    assert first["param_groups"] == second["param_groups"]
    for index, state in first["state"].items():
        for key, value in state.items():
            assert torch.equal(second["state"][index][key], value), (index, key)


@UNTIED_IS_QUICK
def test_old_rows_and_backbone_are_bit_equal_after_stage_1_and_have_no_optimizer_state(
    base_folder: str, text: Path
) -> None:
    module = make_module(base_folder, text)
    trainer = make_trainer(text, max_steps=UNFREEZE)
    before: dict[str, torch.Tensor] = {}

    class Snapshot(Callback):
        def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            before.update({k: v.clone() for k, v in pl_module.state_dict().items()})

    trainer.callbacks.append(Snapshot())  # type: ignore[attr-defined]  # set by a connector
    trainer.fit(module, datamodule=make_data(base_folder, text))
    moved = {name for name, v in module.state_dict().items() if not torch.equal(v, before[name])}
    assert moved
    assert all(name.endswith("rows.new") for name in moved)
    new_rows = {id(p) for n, p in module.named_parameters() if n.endswith("rows.new")}
    assert {id(p) for p in trainer.optimizers[0].state} == new_rows


@UNTIED_IS_QUICK
def test_both_stages_lower_the_bits_per_byte_of_the_new_domain(
    base_folder: str, text: Path
) -> None:
    report = ExpansionReport(str(text / "report.json"))
    spectrum = EmbeddingSpectrumMonitor(every_n_steps=2)
    trainer = make_trainer(text, report, spectrum, max_steps=30)
    trainer.fit(make_module(base_folder, text), datamodule=make_data(base_folder, text))
    rows = {row.name: row for row in report.rows}
    change = rows["bits per byte, new"].change
    assert change is not None
    assert change < -0.3
    assert spectrum.latest != spectrum.first


@pytest.mark.slow
@UNTIED_IS_QUICK
def test_the_report_measures_all_text_where_validation_saw_a_part(
    base_folder: str, text: Path
) -> None:
    report = ExpansionReport()
    trainer = make_trainer(text, report, limit_val_batches=1, max_steps=2, val_check_interval=2)
    module, data = make_module(base_folder, text), make_data(base_folder, text)
    trainer.fit(module, datamodule=data)
    rows = {row.name: row for row in report.rows}
    for name, loader in zip(data.val_names, data.val_dataloader(), strict=True):
        whole = float(module.bits_per_byte(loader).compute())
        assert rows[f"bits per byte, {name}"].after == pytest.approx(whole, rel=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_resumed_run_keeps_the_measured_base_and_cannot_invent_one(
    base_folder: str, text: Path
) -> None:
    first = ExpansionReport()
    trainer = make_trainer(text, first, max_steps=2)
    trainer.fit(make_module(base_folder, text), datamodule=make_data(base_folder, text))
    trainer.save_checkpoint(text / "a.ckpt")
    second = ExpansionReport()
    again = make_trainer(text, second, max_steps=4)
    data = make_data(base_folder, text)
    again.fit(make_module(base_folder, text), datamodule=data, ckpt_path=text / "a.ckpt")
    assert [row.before for row in second.rows] == [row.before for row in first.rows]
    bare = make_trainer(text, max_steps=3)
    bare.fit(make_module(base_folder, text), datamodule=make_data(base_folder, text))
    bare.save_checkpoint(text / "b.ckpt")
    late = make_trainer(text, ExpansionReport(), max_steps=5)
    with pytest.raises(MisconfigurationException, match="from the start of a run"):
        late.fit(
            make_module(base_folder, text),
            datamodule=make_data(base_folder, text),
            ckpt_path=text / "b.ckpt",
        )


class OddStrategy(SingleDeviceStrategy):
    """A strategy that nobody has tested."""


@pytest.mark.slow
@UNTIED_IS_QUICK
def test_an_exported_run_goes_on_as_the_base_of_the_next(base_folder: str, text: Path) -> None:
    first = make_module(base_folder, text)
    make_trainer(text).fit(first, datamodule=make_data(base_folder, text))
    export = str(text / "export")
    first.export(export)
    second = make_module(export, text)
    second.hparams["expansion_dir"] = export
    data = make_data(export, text)
    data.hparams["expansion_dir"] = export
    report, start = ExpansionReport(), FirstRows()
    make_trainer(text, start, report, ContractCheck()).fit(second, datamodule=data)
    assert second.is_base_grown
    for now, was in zip(start.rows, new_rows(first), strict=True):
        assert torch.equal(now, was)
    lines = {row.name: row for row in report.rows}
    assert lines["tokens per byte, new"].before == lines["tokens per byte, new"].after
    begun = second.bits_per_byte(data.base_val_dataloaders()[0]).compute()
    ended = lines["bits per byte, new"]
    assert ended.after == pytest.approx(float(begun))
    assert ended.before is not None
    assert ended.before > float(begun)


class FirstRows(Callback):
    """The new rows as a fit begins with them."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, VocabExpansionModule)
        self.rows = new_rows(pl_module)


def new_rows(module: VocabExpansionModule) -> list[torch.Tensor]:
    split = find_split(module.language_model)
    assert split is not None
    return [part.rows.new.detach().clone() for part in split]


def test_an_untested_strategy_and_a_base_of_another_kind_leave_nothing(
    base_folder: str, text: Path, tmp_path: Path
) -> None:
    trainer = make_trainer(text, accelerator="auto", strategy=OddStrategy(device="cpu"))
    with pytest.raises(MisconfigurationException, match="got OddStrategy"):
        trainer.fit(make_module(base_folder, text), datamodule=make_data(base_folder, text))
    T5Config(vocab_size=300, d_model=8, num_layers=1, num_heads=1).save_pretrained(tmp_path / "t5")
    make_tokenizer().save_pretrained(tmp_path / "t5")
    base = str(tmp_path / "t5")
    with pytest.raises(ValueError, match="encoder-decoder"):
        make_trainer(text).fit(make_module(base, text), datamodule=make_data(base, text))
    assert not (text / "expansion").exists()
    assert not (text / "cache").exists()


class SaveRank(Callback):
    """Each rank writes what it ended with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if "bits" in k}
        values = {"state": pl_module.state_dict(), "metrics": metrics}
        torch.save(values, self.folder / f"rank{trainer.global_rank}.pt")


@pytest.mark.ddp
@UNTIED_IS_QUICK
def test_two_processes_end_bit_equal_after_unfreezing_and_agree_on_bits_per_byte(
    base_folder: str, text: Path
) -> None:
    torch.set_num_threads(1)  # forked children of a threaded parent would wait for its threads
    report = ExpansionReport(str(text / "report.json"))
    trainer = make_trainer(
        text, SaveRank(text), report, strategy="ddp_fork", devices=2, val_check_interval=2
    )
    trainer.fit(make_module(base_folder, text), datamodule=make_data(base_folder, text))
    first, second = (torch.load(text / f"rank{rank}.pt") for rank in (0, 1))
    assert first["metrics"] == second["metrics"]
    assert set(first["metrics"]) == {"val/bits_per_byte/new", "val/bits_per_byte/old"}
    for name, value in first["state"].items():
        assert torch.equal(second["state"][name], value), name
    # The same weights on one process score the same text the same.
    module = make_module(base_folder, text)
    data = make_data(base_folder, text)
    module.configure_model()
    module.load_state_dict(first["state"])
    data.prepare_data()
    data.setup("validate")
    report_rows = {row["name"]: row for row in json.loads((text / "report.json").read_text())}
    for name, loader in zip(data.val_names, data.val_dataloader(), strict=True):
        alone = float(module.bits_per_byte(loader).compute())
        assert alone == pytest.approx(report_rows[f"bits per byte, {name}"]["after"], rel=1e-5)
