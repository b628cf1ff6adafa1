from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
    Strategy,
)
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch.distributed.device_mesh import DeviceMesh
from torch.optim import SGD

from lightning_vocab.callbacks import (
    ContractCheck,
    EmbeddingSpectrumMonitor,
    ExpansionReport,
    FreezeBackbone,
    GradMaskNewRows,
    GroundingReport,
    NewTokenUsage,
    UnfreezeAt,
)
from lightning_vocab.distillation.module import DistillationModule
from lightning_vocab.distributed import (
    refuse_unsupported_strategy,
    refuse_untested_strategy,
    rewrap,
)
from lightning_vocab.grounding import GroundingDataModule
from lightning_vocab.module import VocabExpansionModule
from tests.callbacks.modules import PicoModule, make_trainer


def trainer_with(
    strategy: Strategy, module: LightningModule | None = None, **options: object
) -> Trainer:
    told: dict[str, object] = {
        "strategy": strategy,
        "lightning_module": module,
        "precision": "32-true",
        "gradient_clip_val": None,
        "gradient_clip_algorithm": None,
    }
    return cast(Trainer, SimpleNamespace(**{**told, **options}))


class OwnStrategy(SingleDeviceStrategy):
    pass


@pytest.mark.parametrize(
    "strategy",
    [
        FSDPStrategy(),
        DeepSpeedStrategy.__new__(DeepSpeedStrategy),  # its __init__ wants the package
        OwnStrategy(),
    ],
    ids=lambda strategy: type(strategy).__name__,
)
def test_unknown_strategies_are_refused_by_name(strategy: Strategy) -> None:
    message = rf"supports SingleDeviceStrategy .* DDPStrategy .*got {type(strategy).__name__}"
    with pytest.raises(MisconfigurationException, match=message):
        refuse_unsupported_strategy(trainer_with(strategy), "FreezeBackbone")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (PicoModule(), "VocabExpansionModule, got PicoModule"),
        (DistillationModule("demo", "x"), "got DistillationModule"),
    ],
    ids=["module of one's own", "distillation"],
)
def test_modules_that_were_not_tested_are_refused_under_sharding(
    module: LightningModule, message: str
) -> None:
    with pytest.raises(MisconfigurationException, match=message):
        refuse_untested_strategy(trainer_with(ModelParallelStrategy(), module), "FreezeBackbone")


@pytest.mark.parametrize(
    "callback",
    [
        ContractCheck(),
        EmbeddingSpectrumMonitor(),
        ExpansionReport(),
        GradMaskNewRows(),
        GroundingReport(),
        NewTokenUsage(),
    ],
    ids=lambda callback: type(callback).__name__,
)
def test_callbacks_that_read_whole_rows_are_refused_under_sharding(callback: Callback) -> None:
    module = VocabExpansionModule()
    message = f"{type(callback).__name__} supports .*got ModelParallelStrategy. Use one of the two"
    with pytest.raises(MisconfigurationException, match=message):
        callback.setup(trainer_with(ModelParallelStrategy(), module), module, "fit")


def test_grounding_is_refused_under_sharding_before_its_pairs_are_read() -> None:
    data = GroundingDataModule("pairs.jsonl", expansion_dir="expansion")
    data.trainer = trainer_with(ModelParallelStrategy(), VocabExpansionModule())
    with pytest.raises(MisconfigurationException, match=r"GroundingDataModule .*one of the two"):
        data.prepare_data()


def test_clipping_by_value_is_refused_under_sharding_before_anything_is_loaded() -> None:
    module = VocabExpansionModule()
    # As a Trainer holds what it is given.
    clipping = {
        "gradient_clip_val": 0.5,
        "gradient_clip_algorithm": GradClipAlgorithmType("value"),
    }
    module.trainer = trainer_with(ModelParallelStrategy(), module, **clipping)
    with pytest.raises(MisconfigurationException, match="'norm', got 'value'"):
        module.setup("fit")


def test_clipping_by_value_is_refused_under_sharding_where_a_subclass_asks_for_it() -> None:
    module = VocabExpansionModule()
    module._device_mesh = cast(DeviceMesh, object())
    with pytest.raises(MisconfigurationException, match="'norm', got 'value'"):
        module.configure_gradient_clipping(SGD([torch.zeros(1)]), 0.5, "value")


def test_a_checkpoint_that_is_one_file_is_refused_under_sharding(tmp_path: Path) -> None:
    module = VocabExpansionModule()
    module.trainer = trainer_with(ModelParallelStrategy(), module)
    module.setup("fit")
    torch.save({"global_step": 1}, tmp_path / "one.ckpt")
    with pytest.raises(MisconfigurationException, match=r"it has written, got .*one\.ckpt"):
        module.trainer.strategy.load_checkpoint(tmp_path / "one.ckpt")


def test_writing_checkpoints_as_one_file_is_refused_under_sharding() -> None:
    strategy = ModelParallelStrategy(save_distributed_checkpoint=False)
    with pytest.raises(MisconfigurationException, match="Leave save_distributed_checkpoint out"):
        refuse_untested_strategy(trainer_with(strategy, VocabExpansionModule()), "FreezeBackbone")


def test_other_precisions_are_refused_under_sharding() -> None:
    trainer = trainer_with(ModelParallelStrategy(), VocabExpansionModule(), precision="16-mixed")
    with pytest.raises(MisconfigurationException, match="32-true and bf16-mixed, got 16-mixed"):
        refuse_untested_strategy(trainer, "FreezeBackbone")


def test_generating_is_refused_under_sharding() -> None:
    module = VocabExpansionModule()
    module.trainer = trainer_with(ModelParallelStrategy(), module)
    with pytest.raises(MisconfigurationException, match="predict with the export"):
        module.setup("predict")


def test_static_graph_is_refused() -> None:
    with pytest.raises(MisconfigurationException, match="Leave static_graph out"):
        refuse_unsupported_strategy(trainer_with(DDPStrategy(static_graph=True)), "UnfreezeAt")


def test_state_of_a_communication_hook_is_refused() -> None:
    strategy = DDPStrategy(ddp_comm_state=object())
    with pytest.raises(MisconfigurationException, match="Leave ddp_comm_state out"):
        refuse_unsupported_strategy(trainer_with(strategy), "UnfreezeAt")


@pytest.mark.parametrize(
    "strategy",
    [SingleDeviceStrategy(), DDPStrategy(find_unused_parameters=True), ModelParallelStrategy()],
)
def test_known_strategies_pass(strategy: Strategy) -> None:
    refuse_unsupported_strategy(trainer_with(strategy, VocabExpansionModule()), "FreezeBackbone")


@pytest.mark.parametrize("callback", [FreezeBackbone(), UnfreezeAt(1), GradMaskNewRows()])
def test_each_callback_refuses_before_training(callback: Callback, tmp_path: Path) -> None:
    module = PicoModule()
    trainer = make_trainer(tmp_path, [callback], strategy=OwnStrategy("cpu"))
    with pytest.raises(MisconfigurationException, match=type(callback).__name__):
        trainer.fit(module)
    assert module.model is None


def test_one_device_has_nothing_to_rewrap() -> None:
    strategy = SingleDeviceStrategy()
    rewrap(trainer_with(strategy))
    assert strategy.model is None
