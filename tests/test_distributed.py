from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
    Strategy,
)

from lightning_vocab.callbacks import FreezeBackbone, GradMaskNewRows, UnfreezeAt
from lightning_vocab.distributed import refuse_unsupported_strategy, rewrap
from tests.callbacks.modules import PicoModule, make_trainer


def trainer_with(strategy: Strategy) -> Trainer:
    return cast(Trainer, SimpleNamespace(strategy=strategy))


class OwnStrategy(SingleDeviceStrategy):
    pass


@pytest.mark.parametrize(
    "strategy",
    [
        FSDPStrategy(),
        ModelParallelStrategy(),
        DeepSpeedStrategy.__new__(DeepSpeedStrategy),  # its __init__ wants the package
        OwnStrategy(),
    ],
    ids=lambda strategy: type(strategy).__name__,
)
def test_unknown_strategies_are_refused_by_name(strategy: Strategy) -> None:
    message = rf"supports SingleDeviceStrategy .* DDPStrategy .*got {type(strategy).__name__}"
    with pytest.raises(MisconfigurationException, match=message):
        refuse_unsupported_strategy(trainer_with(strategy), "FreezeBackbone")


def test_static_graph_is_refused() -> None:
    with pytest.raises(MisconfigurationException, match="Leave static_graph out"):
        refuse_unsupported_strategy(trainer_with(DDPStrategy(static_graph=True)), "UnfreezeAt")


def test_state_of_a_communication_hook_is_refused() -> None:
    strategy = DDPStrategy(ddp_comm_state=object())
    with pytest.raises(MisconfigurationException, match="Leave ddp_comm_state out"):
        refuse_unsupported_strategy(trainer_with(strategy), "UnfreezeAt")


@pytest.mark.parametrize(
    "strategy", [SingleDeviceStrategy(), DDPStrategy(find_unused_parameters=True)]
)
def test_known_strategies_pass(strategy: Strategy) -> None:
    refuse_unsupported_strategy(trainer_with(strategy), "FreezeBackbone")


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
