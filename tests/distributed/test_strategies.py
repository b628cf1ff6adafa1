from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
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

from lightning_vocab.callbacks import FreezeBackbone, GradMaskNewRows, UnfreezeAt
from lightning_vocab.distillation.module import DistillationModule
from lightning_vocab.distributed import (
    refuse_sharded_strategy,
    refuse_unsupported_strategy,
    refuse_untested_strategy,
    rewrap,
)
from lightning_vocab.module import VocabExpansionModule
from tests.callbacks.modules import PicoModule, make_trainer


def trainer_with(
    strategy: Strategy, module: LightningModule | None = None, precision: str = "32-true"
) -> Trainer:
    told = {"strategy": strategy, "lightning_module": module, "precision": precision}
    return cast(Trainer, SimpleNamespace(**told))


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
    ("refuse", "module", "message"),
    [
        (refuse_sharded_strategy, VocabExpansionModule(), "Use one of the two"),
        (refuse_untested_strategy, PicoModule(), "VocabExpansionModule, got PicoModule"),
        (refuse_untested_strategy, DistillationModule("demo", "x"), "got DistillationModule"),
    ],
    ids=["callback", "module of one's own", "distillation"],
)
def test_sharding_is_refused_where_it_was_not_tested(
    refuse: Callable[[Trainer, str], None], module: LightningModule, message: str
) -> None:
    with pytest.raises(MisconfigurationException, match=message):
        refuse(trainer_with(ModelParallelStrategy(), module), "EmbeddingSpectrumMonitor")


def test_checkpoints_in_one_file_are_refused_under_sharding() -> None:
    strategy = ModelParallelStrategy(save_distributed_checkpoint=False)
    with pytest.raises(MisconfigurationException, match="Leave save_distributed_checkpoint out"):
        refuse_untested_strategy(trainer_with(strategy, VocabExpansionModule()), "FreezeBackbone")


def test_other_precisions_are_refused_under_sharding() -> None:
    trainer = trainer_with(ModelParallelStrategy(), VocabExpansionModule(), "16-mixed")
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
