from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from transformers import AutoConfig, LlamaForCausalLM, PreTrainedConfig

from lightning_vocab.callbacks import UnfreezeAt
from lightning_vocab.datamodule import VocabDataModule
from lightning_vocab.distillation.refusals import check_layer_of_base
from lightning_vocab.vocabulary import ContinuedBPE
from tests.distillation.conftest import make_data, make_module, make_trainer


def has_done_work(folder: Path) -> bool:
    return (folder / "expansion").exists() or (folder / "cache").exists()


def test_a_backbone_that_trains_is_refused(tied_folder: str, text: Path) -> None:
    module, data = make_module(tied_folder, text), make_data(tied_folder, text)
    bare = Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    with pytest.raises(MisconfigurationException, match="Add FreezeBackbone"):
        bare.fit(module, datamodule=data)
    assert not has_done_work(text)


def test_unfreezing_is_refused_before_any_work(tied_folder: str, text: Path) -> None:
    trainer = make_trainer(text, UnfreezeAt(step=5000))
    with pytest.raises(MisconfigurationException, match="got an UnfreezeAt"):
        trainer.fit(make_module(tied_folder, text), datamodule=make_data(tied_folder, text))
    assert trainer.global_step == 0
    assert not has_done_work(text)


class Thaw(Callback):
    """Makes the whole model trainable behind the back of FreezeBackbone."""

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        pl_module.requires_grad_(True)


@pytest.mark.slow
def test_a_callback_of_another_kind_that_unfreezes_is_refused(tied_folder: str, text: Path) -> None:
    trainer = make_trainer(text, Thaw())
    with pytest.raises(MisconfigurationException, match="more trainable parameters"):
        trainer.fit(make_module(tied_folder, text), datamodule=make_data(tied_folder, text))
    assert trainer.global_step == 0


@pytest.mark.slow
def test_validation_needs_neither_callbacks_nor_snippets(tied_folder: str, text: Path) -> None:
    data = make_data(tied_folder, text)
    data.prepare_data()
    trainer = make_trainer(text, UnfreezeAt(step=2), limit_val_batches=1)
    module = make_module(tied_folder, text, layer=99)
    (figures,) = trainer.validate(module, datamodule=data, verbose=False)
    assert figures["val/bits_per_byte/new"] > 0


def test_data_without_snippets_are_refused(tied_folder: str, text: Path) -> None:
    data = VocabDataModule(
        tied_folder,
        str(text / "expansion"),
        ContinuedBPE(num_new_tokens=12),
        train=str(text / "train.jsonl"),
        block_size=16,
        cache_dir=str(text / "cache"),
    )
    with pytest.raises(MisconfigurationException, match="snippets of a DistillationDataModule"):
        make_trainer(text).fit(make_module(tied_folder, text), datamodule=data)
    assert not has_done_work(text)


NO_SUCH_LAYER = "a layer from 1 to 2 or from -2 to -1"


@pytest.mark.parametrize("layer", [99, 3, -3])
def test_a_layer_that_the_base_lacks_is_refused_before_any_work(
    layer: int, tied_folder: str, text: Path
) -> None:
    with pytest.raises(MisconfigurationException, match=NO_SUCH_LAYER):
        make_trainer(text).fit(
            make_module(tied_folder, text, layer=layer), datamodule=make_data(tied_folder, text)
        )
    assert not has_done_work(text)


@pytest.mark.slow
def test_where_the_config_names_no_layers_the_model_is_asked(
    tied_folder: str, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AutoConfig, "from_pretrained", lambda _: PreTrainedConfig())
    check_layer_of_base(99, tied_folder)
    monkeypatch.undo()
    module = make_module(tied_folder, text, layer=3)
    monkeypatch.setattr(module, "configure_callbacks", list)
    with pytest.raises(MisconfigurationException, match=NO_SUCH_LAYER):
        make_trainer(text).fit(module, datamodule=make_data(tied_folder, text))


def test_a_base_that_is_not_there_is_named(text: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere' gives no config of a model: expected 'demo'"):
        check_layer_of_base(1, str(text / "nowhere"))


@pytest.mark.slow
def test_a_model_without_hidden_states_is_refused(
    tied_folder: str, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LlamaForCausalLM, "base_model", property(lambda model: model))
    with pytest.raises(MisconfigurationException, match="gives no hidden states"):
        make_trainer(text).fit(
            make_module(tied_folder, text), datamodule=make_data(tied_folder, text)
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expansion_dir": None}, "give expansion_dir"),
        ({"layer": 0}, "that is the embedding itself"),
        ({"output_loss_weight": -1.0}, "output_loss_weight of at least 0"),
        ({"lr_new_rows": -1.0}, "not negative"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: dict[str, Any], message: str, text: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        make_module("demo", text, **options)
