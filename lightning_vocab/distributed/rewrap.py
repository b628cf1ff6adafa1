"""Re-wrapping of a module whose trained parameters have changed."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy


def rewrap(trainer: Trainer) -> None:
    """Wrap the module anew, so that the ranks exchange the gradients of what trains now.

    DistributedDataParallel looks at ``requires_grad`` only when it is built: gradients of a
    parameter unfrozen later stay on their rank, and the ranks drift apart without a word
    (Lightning-AI/pytorch-lightning#20340). Does nothing under a strategy without that wrapper:
    fully sharded modules look at ``requires_grad`` in each forward pass.
    Building the wrapper sends the weights of rank 0 to the other ranks once.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, DDPStrategy):
        return
    # The old wrapper goes first, so that its buckets and the new ones never exist together.
    strategy.model = strategy.lightning_module
    strategy.configure_ddp()
