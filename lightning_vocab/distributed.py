"""All that leans on private parts of Lightning: which strategies are known, and re-wrapping."""

from __future__ import annotations

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy


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


def refuse_unsupported_strategy(trainer: Trainer, who: str) -> None:
    """Accept the strategies under which changing what trains in mid-run was tested.

    Sharded strategies show a parameter only in part and fix what trains when they wrap the module.

    Args:
        trainer: The Trainer whose strategy is judged.
        who: Name of the callback that asks, for the message.

    Raises:
        MisconfigurationException: Unless the strategy is exactly `SingleDeviceStrategy` or
            `DDPStrategy`, the latter without ``static_graph`` and without a state for its
            communication hook.
    """
    refuse_sharded_strategy(trainer, who)
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


def rewrap(trainer: Trainer) -> None:
    """Wrap the module anew, so that the ranks exchange the gradients of what trains now.

    DistributedDataParallel looks at ``requires_grad`` only when it is built: gradients of a
    parameter unfrozen later stay on their rank, and the ranks drift apart without a word
    (Lightning-AI/pytorch-lightning#20340). Does nothing under a strategy without that wrapper.
    Building the wrapper sends the weights of rank 0 to the other ranks once.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, DDPStrategy):
        return
    # The old wrapper goes first, so that its buckets and the new ones never exist together.
    strategy.model = strategy.lightning_module
    strategy.configure_ddp()
