"""The switch between our loss and those of other libraries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.fabric.utilities import rank_zero_info
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_vocab.data.rows import IGNORED
from lightning_vocab.distributed import is_sharded
from lightning_vocab.functional.loss_kernels import OWN, Trial, fastest
from lightning_vocab.loss import NextTokenLoss
from lightning_vocab.uncompiled import uncompiled

FASTEST = "fastest"
KERNEL_KEY = "loss_kernel"
"""Entry of a checkpoint that holds the choice."""


class KernelChoice:
    """Settles which kernel computes the loss, again whenever other rows train.

    While the old rows are frozen ours is the only one that does not compute their gradient. Where
    all rows train, ``fastest`` times those that are installed on the first batch, and takes the
    fastest of those that give our numbers; rank 0 decides. What is chosen depends on the clock, so
    two runs may differ in their last bits; one that is resumed keeps its choice (`state`).

    Args:
        wanted: ``own`` or ``fastest``.

    Raises:
        ValueError: If another name is given.
    """

    def __init__(self, wanted: str) -> None:
        if wanted not in (OWN, FASTEST):
            raise ValueError(f"loss_kernel is {OWN!r} or {FASTEST!r}, got {wanted!r}.")
        self._wanted = wanted
        self._trained: list[bool] | None = None
        self.state: dict[str, Any] = {}
        """Which parameters of the head trained when the kernel was chosen, and which it was."""

    @uncompiled
    def settle(self, loss: NextTokenLoss, batch: Mapping[str, Tensor], trainer: Trainer) -> None:
        """Choose the kernel of ``loss``, if that is not done for the rows that train now.

        Args:
            loss: The loss of the model.
            batch: A batch of the training.
            trainer: The Trainer, which tells all ranks what rank 0 has chosen.

        Raises:
            MisconfigurationException: If the rows are divided among ranks.
        """
        if self._wanted == OWN:
            if self._trained is None:
                self._trained = []
                rank_zero_info(f"Loss kernel {OWN}.")
            return
        if is_sharded(trainer):
            raise MisconfigurationException(
                f"loss_kernel={FASTEST!r} was not tested with parameters that are divided among "
                f"ranks: set it to {OWN!r} under ModelParallelStrategy."
            )
        trained = [parameter.requires_grad for parameter in loss.head_parameters()]
        if trained == self._trained:
            return
        is_resumed = self._trained is None and self.state.get("trained") == trained
        if is_resumed:
            loss.kernel = self.state["kernel"]
            rank_zero_info(f"Loss kernel {loss.kernel}, as before the run was resumed.")
        elif not trainer.strategy.broadcast(bool((batch["labels"][:, 1:] != IGNORED).any())):
            return  # nothing to compare on; the next batch will do
        else:
            trials = loss.try_kernels(batch)
            loss.kernel = trainer.strategy.broadcast(fastest(trials) if trials else OWN)
            rank_zero_info(_report(loss.kernel, trials))
        self._trained = trained
        self.state = {"trained": trained, "kernel": loss.kernel}


def _report(chosen: str, trials: list[Trial]) -> str:
    if not trials:
        return f"Loss kernel {chosen}: no other one can be used for the rows that train now."
    figures = [
        f"{each.name} {each.seconds:.3g} s a batch"
        + ("" if each.name == OWN else f", relative difference {each.difference:.2g}")
        + ("" if each.is_equal else " (too large)")
        for each in trials
    ]
    return f"Loss kernel {chosen}: {'; '.join(figures)}."
