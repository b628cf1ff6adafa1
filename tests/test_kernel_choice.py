from __future__ import annotations

from logging import LogRecord
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import TestCase

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from lightning_vocab import kernel_choice
from lightning_vocab.callbacks import FreezeBackbone, UnfreezeAt
from lightning_vocab.functional.loss_kernels import Trial, try_kernels
from lightning_vocab.kernel_choice import KernelChoice
from lightning_vocab.loss import NextTokenLoss
from lightning_vocab.module import VocabExpansionModule
from tests.quiet import quiet_trainer
from tests.test_plain_path import fit, make_batches, make_module


@pytest.mark.slow
def test_the_fastest_kernel_is_settled_once_all_rows_train_and_reported(
    base_folder: str,
    expansion_folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def torch_wins(*arguments: Any, **options: Any) -> list[Trial]:
        own, other = try_kernels(*arguments, **options)
        assert other.is_equal
        return [own._replace(seconds=2.0), other._replace(seconds=1.0, difference=1e-7)]

    monkeypatch.setattr("lightning_vocab.loss.try_kernels", torch_wins)
    own, module = (
        make_module(base_folder, expansion_folder, loss_kernel=name) for name in ("own", "fastest")
    )
    with TestCase().assertLogs("lightning.pytorch") as said:
        for each in (own, module):
            fit(each, tmp_path, callbacks=[FreezeBackbone(), UnfreezeAt(2)])
    assert (own.loss.kernel, module.loss.kernel) == ("own", "torch")
    reports = [
        line for line in map(LogRecord.getMessage, said.records) if line.startswith("Loss kernel")
    ]
    assert reports == [
        "Loss kernel own.",
        "Loss kernel own: no other one can be used for the rows that train now.",
        "Loss kernel torch: own 2 s a batch; torch 1 s a batch, relative difference 1e-07.",
    ]
    for name, expected in own.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], expected, rtol=1e-5, atol=2e-6)


@pytest.mark.slow
def test_a_resumed_run_keeps_its_kernel_without_another_trial(
    base_folder: str, expansion_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit_and_save(epochs: int, resumed: Path | None) -> VocabExpansionModule:
        module = make_module(base_folder, expansion_folder, loss_kernel="fastest")
        trainer = quiet_trainer(tmp_path, max_epochs=epochs)
        rows: Any = DataLoader(make_batches(), batch_size=None)  # type: ignore[arg-type]  # a list will do
        trainer.fit(module, rows, ckpt_path=resumed, weights_only=True)
        trainer.save_checkpoint(tmp_path / "a.ckpt")
        return module

    torch_wins = [Trial("own", 2.0, 0.0, True), Trial("torch", 1.0, 0.0, True)]
    monkeypatch.setattr(NextTokenLoss, "try_kernels", lambda *_: torch_wins)
    assert fit_and_save(1, None).loss.kernel == "torch"
    monkeypatch.delattr(NextTokenLoss, "try_kernels")
    assert fit_and_save(2, tmp_path / "a.ckpt").loss.kernel == "torch"


def test_a_batch_without_a_target_settles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: Any) -> Any:
        raise AssertionError("there is nothing to compare on")

    parameter = torch.nn.Parameter(torch.zeros(1))
    loss: Any = SimpleNamespace(
        kernel="own", head_parameters=lambda: [parameter], try_kernels=asked
    )
    alone: Any = SimpleNamespace(strategy=SimpleNamespace(broadcast=lambda value: value))
    choice = KernelChoice("fastest")
    choice.settle(loss, {"labels": torch.full((2, 3), -100)}, alone)
    assert choice.state == {}


def test_an_unknown_kernel_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="'own' or 'fastest', got 'liger'"):
        KernelChoice("liger")


def test_divided_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_choice, "is_sharded", lambda trainer: True)
    nothing: Any = SimpleNamespace()
    KernelChoice("own").settle(nothing, {}, nothing)
    with pytest.raises(MisconfigurationException, match="set it to 'own'"):
        KernelChoice("fastest").settle(nothing, {}, nothing)
