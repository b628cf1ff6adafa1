"""The stage under other Trainers, and on bases with slots or with rows that were learned before."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_vocab.distillation import DistillationDataModule, DistillationModule
from lightning_vocab.initializers import Keep
from lightning_vocab.vocabulary import ContinuedBPE
from tests.conftest import TEXTS, case, make_model, make_tokenizer
from tests.distillation.conftest import make_data, make_module, make_trainer, write_lines
from tests.expanded import with_slots

UNTIED_IS_QUICK = pytest.mark.parametrize(
    "base_folder",
    [case(False, quick=True, id="untied"), case(True, quick=False, id="tied")],
    indirect=True,
)


def values_of(module: DistillationModule) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.language_model.state_dict().items()}


class Start(Callback):
    """The model as it was before the first step."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DistillationModule)
        self.values = values_of(pl_module)


def new_ids(data: DistillationDataModule) -> list[int]:
    return list(data.expanded.expansion.new_ids)  # type: ignore[union-attr]  # it has grown


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*occur fewer than 4 times")
@UNTIED_IS_QUICK
def test_held_rows_stay_bit_for_bit_under_accumulation_clipping_and_decay(
    base_folder: str, text: Path
) -> None:
    write_lines(text / "train.jsonl", [*TEXTS, *["zebra vivid zebra vivid"] * 9])
    module = make_module(base_folder, text, weight_decay_rows=0.5)
    data, start = make_data(base_folder, text, batch_size=4), Start()
    options = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1}
    make_trainer(text, start, **options).fit(module, datamodule=data)
    is_held = torch.isin(torch.tensor(new_ids(data)), torch.tensor(data.held_ids))
    assert 0 < int(is_held.sum()) < len(is_held)
    after = values_of(module)
    for name, before in start.values.items():
        moved = after[name] != before
        if name.endswith("rows.new"):
            assert moved.any(dim=1).tolist() == (~is_held).tolist()
        else:
            assert not moved.any()


@pytest.mark.slow
@pytest.mark.parametrize(
    "tied", [case(False, quick=True, id="untied"), case(True, quick=False, id="tied")]
)
def test_slots_amid_the_old_rows_are_taught_and_nothing_else_moves(tied: bool, text: Path) -> None:
    base = text / "base"
    make_model(306, tied=tied).save_pretrained(base)
    with_slots(make_tokenizer(), 3).save_pretrained(base)  # id 303 is a base token behind a slot
    data = make_data(str(base), text, extender=ContinuedBPE(3, into_slots=True))
    start = Start()
    module = make_module(str(base), text)
    make_trainer(text, start).fit(module, datamodule=data)
    assert new_ids(data) == [300, 304, 305]
    batch = next(iter(data.train_dataloader()))
    assert torch.isin(batch["input_ids"], torch.tensor(new_ids(data))).any()
    assert not torch.isin(batch["teacher_ids"], torch.tensor(new_ids(data))).any()
    after = values_of(module)
    for name, before in start.values.items():
        if name.endswith("rows.new"):
            assert bool((after[name] != before).any(dim=1).all())
        else:
            assert torch.equal(after[name], before)


@pytest.mark.slow
@pytest.mark.parametrize("initializer", [case(Keep(), quick=True), case(None, quick=False)])
@UNTIED_IS_QUICK
def test_a_grown_base_goes_on_from_the_rows_that_were_exported(
    initializer: Keep | None, base_folder: str, text: Path
) -> None:
    first = make_module(base_folder, text)
    make_trainer(text).fit(first, datamodule=make_data(base_folder, text))
    export = str(text / "export")
    first.export(export)
    start = Start()
    second = make_module(export, text, expansion_dir=export, initializer=initializer)
    data = make_data(export, text, expansion_dir=export, extender=None)
    make_trainer(text, start).fit(second, datamodule=data)
    assert second.is_base_grown
    exported, after = values_of(first), values_of(second)
    for name, begun in start.values.items():
        assert torch.equal(begun, exported[name])
        assert torch.equal(after[name], begun) != name.endswith("rows.new")
