"""Which strategies are known, and which are refused by name."""

from __future__ import annotations

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import (
    DDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
)

_PRECISIONS = ("32-true", "bf16-mixed")


def is_sharded(trainer: Trainer) -> bool:
    """Whether the strategy divides parameters among ranks in a way that is supported."""
    return type(trainer.strategy) is ModelParallelStrategy


def refuse_sharded_strategy(trainer: Trainer, who: str) -> None:
    """Accept the strategies under which each rank holds whole parameters and that were tested.

    Args:
        trainer: The Trainer whose strategy is judged.
        who: Name of the module or callback that asks, for the message.

    Raises:
        MisconfigurationException: Unless the strategy is exactly `SingleDeviceStrategy` or
            `DDPStrategy`.
    """
    # Exact types: DeepSpeedStrategy is a subclass of DDPStrategy, and XLA has one of the other.
    if type(trainer.strategy) not in (SingleDeviceStrategy, DDPStrategy):
        raise MisconfigurationException(
            f"{who} supports SingleDeviceStrategy ('auto' on one device) and DDPStrategy ('ddp' "
            f"and its variants), got {type(trainer.strategy).__name__}. Use one of the two."
        )


def refuse_untested_strategy(trainer: Trainer, who: str) -> None:
    """Accept one device, DDP, and for a module that can be sharded `ModelParallelStrategy`.

    Args:
        trainer: The Trainer whose strategy is judged.
        who: Name of the module, data module or callback that asks, for the message.

    Raises:
        MisconfigurationException: If the strategy is another one; under `ModelParallelStrategy`,
            if the module or the precision was not tested, or if checkpoints would be one file.
    """
    if not is_sharded(trainer):
        if type(trainer.strategy) not in (SingleDeviceStrategy, DDPStrategy):
            raise MisconfigurationException(
                f"{who} supports SingleDeviceStrategy ('auto' on one device), DDPStrategy ('ddp' "
                "and its variants) and ModelParallelStrategy, got "
                f"{type(trainer.strategy).__name__}. Use one of the three."
            )
        return
    module = trainer.lightning_module
    if not getattr(module, "is_shardable", False):
        raise MisconfigurationException(
            f"ModelParallelStrategy is supported for VocabExpansionModule, got "
            f"{type(module).__name__}, whose parameters {who} may not divide among ranks. Use "
            "SingleDeviceStrategy or DDPStrategy."
        )
    if trainer.precision not in _PRECISIONS:
        raise MisconfigurationException(
            f"ModelParallelStrategy was tested with precision {' and '.join(_PRECISIONS)}, got "
            f"{trainer.precision}. Use one of them."
        )
    if not trainer.strategy._save_distributed_checkpoint:  # type: ignore[attr-defined]  # it has it
        raise MisconfigurationException(
            "ModelParallelStrategy(save_distributed_checkpoint=False) writes the optimizer's state "
            "under numbers that do not fit named parameter groups when it is read again. Leave "
            "save_distributed_checkpoint out: the checkpoint is a folder then."
        )


def refuse_unsupported_strategy(trainer: Trainer, who: str) -> None:
    """Accept the strategies under which changing what trains in mid-run was tested.

    Args:
        trainer: The Trainer whose strategy is judged.
        who: Name of the callback that asks, for the message.

    Raises:
        MisconfigurationException: As `refuse_untested_strategy`; and under DDPStrategy with
            ``static_graph`` or with a state for its communication hook.
    """
    refuse_untested_strategy(trainer, who)
    strategy = trainer.strategy
    if not isinstance(strategy, DDPStrategy):
        return
    if strategy._ddp_kwargs.get("static_graph"):
        raise MisconfigurationException(
            f"{who} changes which parameters train, but DDPStrategy has static_graph=True. "
            "Leave static_graph out."
        )
    if strategy._ddp_comm_state is not None:
        raise MisconfigurationException(
            f"{who} re-wraps the module when the trained parameters change, and the state of the "
            f"communication hook ({type(strategy._ddp_comm_state).__name__}) would not fit the new "
            "buckets. Leave ddp_comm_state out."
        )
