from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy

from lightning_vocab.callbacks import ExpansionReport, GroundingReport, NewTokenUsage
from lightning_vocab.datamodule import VocabDataModule
from lightning_vocab.module import VocabExpansionModule
from tests.callbacks.modules import PicoModule


def trainer_with(data: VocabDataModule | None) -> Trainer:
    return cast(Trainer, SimpleNamespace(strategy=SingleDeviceStrategy(), datamodule=data))


@pytest.mark.parametrize("callback", [ExpansionReport(), GroundingReport(), NewTokenUsage()])
@pytest.mark.parametrize("module", [PicoModule(), VocabExpansionModule()])
def test_a_module_without_new_rows_is_refused_before_it_is_built(
    callback: Callback, module: LightningModule
) -> None:
    message = f"{type(callback).__name__} looks at .*got {type(module).__name__} without new rows"
    with pytest.raises(MisconfigurationException, match=message):
        callback.setup(trainer_with(None), module, "fit")


@pytest.mark.parametrize("data", [None, VocabDataModule(train="text.txt")])
def test_a_report_on_no_validation_text_is_refused(data: VocabDataModule | None) -> None:
    module = VocabExpansionModule("demo", expansion_dir="expansion")
    with pytest.raises(MisconfigurationException, match=f"got {type(data).__name__} without any"):
        ExpansionReport().setup(trainer_with(data), module, "fit")
