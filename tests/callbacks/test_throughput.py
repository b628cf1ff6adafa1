"""Tokens and bytes in a second, against the text and a clock that the test moves on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from lightning_vocab.callbacks.throughput import TextThroughputMonitor
from lightning_vocab.datamodule import VocabDataModule
from lightning_vocab.module import VocabExpansionModule
from tests.callbacks.modules import PicoModule, make_trainer
from tests.conftest import NEW_TEXTS, TEXTS, make_tokenizer

TRAINED = [*TEXTS, *NEW_TEXTS, "Où est le chat ? ไม่รู้"]


class Clock(Callback):
    """A second for each batch, a hundred for each validation, and what the batches held."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, monitor: TextThroughputMonitor) -> None:
        self.seconds = 0.0
        self.monitor = monitor
        self.counts: list[torch.Tensor] = []
        time = SimpleNamespace(perf_counter=lambda: self.seconds)
        monkeypatch.setattr("lightning_vocab.callbacks.throughput.time", time)

    @override
    def on_train_batch_start(self, *arguments: Any) -> None:
        self.seconds += 1
        self.counts.append(self.monitor.count(arguments[2]))

    @override
    def on_validation_batch_start(self, *_: Any) -> None:
        self.seconds += 100


def make_data(place: Path, base: str, layout: Any = "packed") -> VocabDataModule:
    lines = [json.dumps({"text": each}) for each in TRAINED * 2]
    (place / "text.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return VocabDataModule(
        base,
        train=str(place / "text.jsonl"),
        val={"same": str(place / "text.jsonl")},
        block_size=16,
        batch_size=2,
        layout=layout,
        cache_dir=str(place / "cache"),
    )


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_an_epoch_counts_every_byte_of_the_text_and_every_token_once(
    layout: str, tmp_path: Path, tied_folder: str
) -> None:
    data = make_data(tmp_path, tied_folder, layout)
    data.prepare_data()
    data.setup("fit")
    monitor = TextThroughputMonitor()
    trainer = SimpleNamespace(datamodule=data, global_step=0)
    monitor.on_train_start(trainer, LightningModule())  # type: ignore[arg-type]
    tokens, num_bytes = sum(monitor.count(batch) for batch in data.train_dataloader())  # type: ignore[misc]
    ids = data.tokenizer(TRAINED * 2, add_special_tokens=False).input_ids
    assert num_bytes == sum(len(text.encode()) for text in TRAINED * 2)
    assert tokens == sum(len(each) + 1 for each in ids)  # its end token is a target, of no byte


@pytest.mark.parametrize("accumulated", [1, 2])
def test_rates_are_those_of_the_steps_since_the_last_figure_without_the_first_and_validation(
    accumulated: int, tmp_path: Path, tied_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = TextThroughputMonitor(every_n_steps=4)
    clock = Clock(monkeypatch, monitor)
    trainer = make_trainer(
        tmp_path,
        [clock, monitor],
        max_steps=6,
        limit_train_batches=8,
        limit_val_batches=1,
        val_check_interval=3,
        accumulate_grad_batches=accumulated,
    )
    trainer.fit(VocabExpansionModule(base=tied_folder), make_data(tmp_path, tied_folder))
    batches = torch.stack(clock.counts)
    assert len(batches) == 6 * accumulated
    tokens, num_bytes = batches[4 * accumulated :].sum(0).tolist()  # the fifth and the sixth step
    seconds = len(batches) - 4 * accumulated
    assert monitor.latest == pytest.approx(
        {
            "throughput/tokens_per_second": tokens / seconds,
            "throughput/bytes_per_second": num_bytes / seconds,
            "throughput/bytes_per_token": num_bytes / tokens,
        }
    )
    name = "throughput/bytes_per_second"
    assert float(trainer.callback_metrics[name]) == pytest.approx(monitor.latest[name])


@pytest.mark.slow
@pytest.mark.ddp
def test_two_ranks_add_up(
    tmp_path: Path, tied_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = TextThroughputMonitor(every_n_steps=2)
    clock = Clock(monkeypatch, monitor)
    summed = Summed(clock)
    trainer = make_trainer(
        tmp_path, [clock, monitor, summed], max_steps=2, strategy="ddp_fork", devices=2
    )
    trainer.fit(VocabExpansionModule(base=tied_folder), make_data(tmp_path, tied_folder))
    found = trainer.callback_metrics  # callbacks live in the forked processes
    assert float(found["throughput/bytes_per_second"]) == float(found["bytes"]) > 0
    name = "throughput/tokens_per_second"
    assert float(found[f"{name}_per_device"]) == float(found[name]) / 2


class Summed(Callback):
    """The bytes of the second batch, of all ranks."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        total = trainer.strategy.reduce(self.clock.counts[1][1].clone(), reduce_op="sum")
        assert isinstance(total, torch.Tensor)
        trainer.callback_metrics["bytes"] = total


def test_what_holds_no_text_is_refused_before_it_is_trained_on(
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        TextThroughputMonitor(every_n_steps=0)
    with pytest.raises(MisconfigurationException, match="nor PicoModule has a Hugging Face one"):
        make_trainer(tmp_path, [TextThroughputMonitor()]).fit(PicoModule())
    module = PicoModule()
    module.tokenizer = make_tokenizer()  # type: ignore[assignment]  # no plain attribute to torch
    with pytest.raises(MisconfigurationException, match=r"input_ids and labels .*, got Tensor"):
        make_trainer(tmp_path, [TextThroughputMonitor()]).fit(module)
