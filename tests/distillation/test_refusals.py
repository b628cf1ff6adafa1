from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from transformers import LlamaForCausalLM

from lightning_vocab.callbacks import UnfreezeAt
from lightning_vocab.datamodule import VocabDataModule
from lightning_vocab.vocabulary import ContinuedBPE
from tests.distillation.conftest import make_data, make_module, make_trainer


def test_a_backbone_that_trains_is_refused(tied_folder: str, text: Path) -> None:
    module, data = make_module(tied_folder, text), make_data(tied_folder, text)
    bare = Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    with pytest.raises(MisconfigurationException, match="Add FreezeBackbone"):
        bare.fit(module, datamodule=data)


def test_unfreezing_within_the_stage_is_refused(tied_folder: str, text: Path) -> None:
    with pytest.raises(MisconfigurationException, match="no UnfreezeAt"):
        make_trainer(text, UnfreezeAt(step=2)).fit(
            make_module(tied_folder, text), datamodule=make_data(tied_folder, text)
        )


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


@pytest.mark.parametrize("layer", [3, -3])
def test_a_layer_that_the_model_lacks_is_refused(layer: int, tied_folder: str, text: Path) -> None:
    with pytest.raises(MisconfigurationException, match="a layer from 1 to 2 or from -2 to -1"):
        make_trainer(text).fit(
            make_module(tied_folder, text, layer=layer), datamodule=make_data(tied_folder, text)
        )


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
