"""What may follow grounding: a part in which everything trains, and a fit on the grown base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from lightning_vocab.callbacks import ExportHuggingFace, FreezeBackbone, UnfreezeAt
from lightning_vocab.callbacks.grounding_report import GroundingReport
from lightning_vocab.initializers import Keep
from lightning_vocab.module import VocabExpansionModule
from tests.grounding.small import PAIRS, module_for, split_rows, trainer, written


class Values(Callback):
    """Old rows, a backbone weight and new rows at the start and after each step."""

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def _note(self, module: Any) -> None:
        rows = split_rows(module)[0]
        weight = module.language_model.base_model.layers[0].mlp.up_proj.weight
        values = rows.old, weight, rows.new
        self.seen.append(tuple(value.detach().clone() for value in values))

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._note(pl_module)

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        self._note(pl_module)


def test_in_a_second_part_on_the_same_pairs_backbone_and_old_rows_train_too(
    tied_folder: str, tmp_path: Path
) -> None:
    values = Values()
    module = VocabExpansionModule(tied_folder, str(tmp_path / "expansion"))
    callbacks = [FreezeBackbone(), UnfreezeAt(step=2), values]
    trainer(tmp_path, max_steps=4, callbacks=callbacks).fit(
        module, module_for(tmp_path, tied_folder)
    )
    (old, weight, new), *steps = values.seen
    assert len(steps) == 4
    for step, (each_old, each_weight, each_new) in enumerate(steps, start=1):
        assert torch.equal(each_old, old) == (step <= 2)
        assert torch.equal(each_weight, weight) == (step <= 2)
        assert not torch.equal(each_new, new)


class Start(Callback):
    """The rows in front of the first step."""

    def __init__(self) -> None:
        self.rows: list[Tensor] = []

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, VocabExpansionModule)
        rows = split_rows(pl_module)[0]
        self.rows = [rows.old.detach().clone(), rows.new.detach().clone()]


@pytest.mark.slow
@pytest.mark.parametrize("initializer", [None, Keep()], ids=["none given", "Keep"])
def test_on_the_exported_folder_the_rows_go_on_from_where_they_were(
    initializer: Keep | None, tied_folder: str, tmp_path: Path
) -> None:
    export = str(tmp_path / "export")
    first = VocabExpansionModule(tied_folder, str(tmp_path / "expansion"), lr_new_rows=0.01)
    trainer(tmp_path, max_steps=2, callbacks=[FreezeBackbone(), ExportHuggingFace(export)]).fit(
        first, module_for(tmp_path, tied_folder)
    )
    start = Start()
    again = VocabExpansionModule(export, export, initializer, lr_new_rows=0.01)
    trainer(tmp_path, max_steps=2, callbacks=[FreezeBackbone(), start]).fit(
        again, module_for(tmp_path, export, expansion_dir=export)
    )
    rows, moved = split_rows(first)[0], split_rows(again)[0]
    assert torch.equal(start.rows[0], rows.old)
    assert torch.equal(start.rows[1], rows.new)
    assert torch.equal(moved.old, rows.old)
    assert not torch.equal(moved.new, rows.new)


@pytest.mark.slow
def test_a_report_on_the_exported_folder_judges_by_the_reference_of_the_first_base(
    tied_folder: str, tmp_path: Path
) -> None:
    written(tmp_path, [*PAIRS, {"token": "<b_2>", "description": "like <fig> but a<a_1> log"}])
    base, expansion, export = tied_folder, str(tmp_path / "expansion"), str(tmp_path / "export")
    spaces = []
    for _ in range(2):
        report = GroundingReport()
        callbacks = [FreezeBackbone(), report, ExportHuggingFace(export, overwrite=True)]
        module = VocabExpansionModule(base, expansion, lr_new_rows=0.1)
        trainer(tmp_path, max_steps=2, callbacks=callbacks).fit(
            module, module_for(tmp_path, base, expansion_dir=expansion)
        )
        spaces.append(report.state_dict()["space"])
        base = expansion = export
    assert torch.equal(*spaces)
