from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_vocab import kernel_choice
from lightning_vocab.callbacks import FreezeBackbone, UnfreezeAt
from lightning_vocab.functional.loss_kernels import Trial, try_kernels
from lightning_vocab.kernel_choice import KernelChoice
from tests.test_plain_path import fit, make_module


def test_the_fastest_kernel_is_settled_once_all_rows_train_and_reported(
    base_folder: str,
    expansion_folder: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def torch_wins(*arguments: Any, **options: Any) -> list[Trial]:
        own, other = try_kernels(*arguments, **options)
        assert other.is_equal
        return [own._replace(seconds=2.0), other._replace(seconds=1.0, difference=1e-7)]

    monkeypatch.setattr("lightning_vocab.loss.try_kernels", torch_wins)
    stages = [FreezeBackbone(), UnfreezeAt(2)]
    own, module = (
        make_module(base_folder, expansion_folder, loss_kernel=name) for name in ("own", "fastest")
    )
    fit(own, tmp_path, callbacks=stages)
    with caplog.at_level(logging.INFO):
        fit(module, tmp_path, callbacks=[FreezeBackbone(), UnfreezeAt(2)])
    assert (own.loss.kernel, module.loss.kernel) == ("own", "torch")
    reports = [line for line in caplog.messages if line.startswith("Loss kernel")]
    assert reports == [
        "Loss kernel own: no other one can be used for the rows that train now.",
        "Loss kernel torch: own 2 s a batch; torch 1 s a batch, relative difference 1e-07.",
    ]
    for name, expected in own.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], expected, rtol=1e-5, atol=2e-6)


def test_an_unknown_kernel_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="'own' or 'fastest', got 'liger'"):
        KernelChoice("liger")


def test_divided_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_choice, "is_sharded", lambda trainer: True)
    nothing: Any = SimpleNamespace()
    KernelChoice("own").settle(nothing, {}, nothing)
    with pytest.raises(MisconfigurationException, match="set it to 'own'"):
        KernelChoice("fastest").settle(nothing, {}, nothing)
