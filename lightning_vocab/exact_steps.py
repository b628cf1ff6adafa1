"""Training steps that ranks, accumulation and interruption do not change."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from lightning.fabric.utilities import rank_zero_warn
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import Tensor
from typing_extensions import override

from lightning_vocab.data.rows import IGNORED
from lightning_vocab.uncompiled import uncompiled

WINDOW_KEY = "accumulation_window"
"""Entry of a checkpoint that holds the gradients of an open window, and its tokens."""


class ExactSteps(LightningModule):
    """Draws the dropout of each batch from a seed of its own, and means over all tokens of a step.

    **Dropout.** A checkpoint of Lightning holds no random state, so a resumed run would drop other
    values. Here nothing has to be restored: each batch has a seed that follows from that of the run
    (`seed_everything`), the optimizer steps made, the place in the epoch and the rank's share of
    the data. Random numbers outside the step go on as if it had drawn none.

    **Means.** Distributed training means the gradients of ranks, and accumulation those of batches,
    whatever number of tokens each has scored: tokens in short batches would count for more, and
    the last window of an epoch, of fewer batches, would step less far. The gradient here is that
    of the mean over all scored tokens of all batches of all ranks between two optimizer steps.
    Cost: the exchange of one number a batch where there are several ranks, and with accumulation
    one pass over the gradients a step. Where all batches have as many scored tokens, both factors
    are 1.0 and change no bit.

    **Open windows.** Lightning forgets the gradients of a window in which it saves, and does save
    there: whenever time or a validation says so, and in a resumed run at its first batch, if the
    number of steps made is one to save at. Here such a checkpoint holds them, as their mean over
    the ranks. Not where parameters are divided among ranks: there a warning says so.

    A subclass that overrides a hook of this class calls the hook of this class, too.
    """

    _is_window_full = True
    """Whether the last batch that was begun ends in an optimizer step."""

    _open_window: dict[str, Any] | None = None
    _counts: tuple[Tensor, ...] = ()
    """Scored tokens of all ranks, for each batch of the accumulation window."""

    _outer: tuple[Tensor, Tensor | None] | None = None
    """States of the random numbers outside the batch: of the CPU, and of a GPU."""

    @override
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the random numbers of this batch."""
        self._leave_batch()  # where the one before was given up
        on_gpu = self.device.type == "cuda"
        gpu = torch.cuda.get_rng_state(self.device) if on_gpu else None
        self._outer = torch.get_rng_state(), gpu
        place = self.trainer.distributed_sampler_kwargs or {"rank": 0}
        told = (torch.initial_seed(), self.trainer.global_step, batch_idx, place["rank"])
        digest = hashlib.sha256(repr(told).encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:8], "little"))
        num_batches = batch_idx + 1
        is_last = self.trainer.is_last_batch or num_batches == self.trainer.num_training_batches
        self._is_window_full = is_last or num_batches % self.trainer.accumulate_grad_batches == 0

    @override
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Let the random numbers outside the step go on."""
        self._leave_batch()

    @uncompiled
    def over_all_tokens(
        self, mean_nats: Tensor, labels: Tensor, batch_idx: int
    ) -> tuple[Tensor, Tensor]:
        """What this rank contributes to the mean over all tokens of a batch, and of a step.

        Args:
            mean_nats: Mean over the scored tokens of this rank's batch, a scalar.
            labels: Its labels ``(batch, time)``, not shifted, `IGNORED` where not scored.
            batch_idx: Number of the batch in its epoch.

        Returns:
            Two scalars: one whose mean over the ranks is that of the batch's tokens, to be logged,
            and one to return from the training step.
        """
        trainer = self.trainer
        window = trainer.accumulate_grad_batches
        if trainer.world_size == 1 and window == 1:
            return mean_nats, mean_nats
        count = (labels[:, 1:] != IGNORED).sum()
        total = trainer.strategy.reduce(count.clone(), reduce_op="sum")
        assert isinstance(total, Tensor)
        self._counts = (*(self._counts if batch_idx % window else ()), total)
        # The tokens of a window are known at its end: till then its first batch stands for them.
        weights = (
            count * trainer.world_size / each.clamp(min=1) for each in (total, self._counts[0])
        )
        of_batch, of_step = (mean_nats * weight for weight in weights)
        return of_batch, of_step

    @override
    def on_after_backward(self) -> None:
        """Put the tokens of the whole window in the place of those of its first batch."""
        window = self.trainer.accumulate_grad_batches
        if window == 1 or not self._is_window_full or not self._counts:
            return
        tokens = torch.stack(self._counts).sum()
        factor = window * self._counts[0].clamp(min=1) / tokens.clamp(min=1)
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(factor)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the gradients of an open accumulation window into the checkpoint."""
        super().on_save_checkpoint(checkpoint)
        if self._is_window_full:
            return
        if self.device_mesh is not None:
            rank_zero_warn(
                "This checkpoint was saved between the batches of an optimizer step, whose "
                "gradients it does not hold: a resumed run will not equal this one. Save after as "
                "many batches as are a multiple of accumulate_grad_batches."
            )
            return
        named = ((name, p.grad) for name, p in self.named_parameters() if p.grad is not None)
        mean = self.trainer.strategy.reduce
        gradients = {name: mean(each.clone(), reduce_op="mean") for name, each in named}
        counts = [int(count) for count in self._counts]
        batches = self.trainer.accumulate_grad_batches
        checkpoint[WINDOW_KEY] = {"gradients": gradients, "counts": counts, "batches": batches}

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the gradients of an open window until there are parameters that train."""
        super().on_load_checkpoint(checkpoint)
        self._open_window = checkpoint.get(WINDOW_KEY)

    @override
    def on_train_start(self) -> None:
        """Go on with the window in which the checkpoint was saved.

        Raises:
            MisconfigurationException: If the window of this run has another number of batches.
        """
        super().on_train_start()
        self._outer = None  # of a fit that ended inside a batch: its seed is not this fit's
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]  # Lightning sets it
            if isinstance(callback, GradientAccumulationScheduler):
                # Lightning asks it when an epoch starts, which a fit resumed inside one has not.
                batches = callback.get_accumulate_grad_batches(self.trainer.current_epoch)
                self.trainer.accumulate_grad_batches = batches
        self._is_window_full = self._open_window is None
        if self._open_window is None:
            return
        saved, batches = self._open_window["batches"], self.trainer.accumulate_grad_batches
        if saved != batches:
            raise MisconfigurationException(
                f"The checkpoint was saved between the {saved} batches of an optimizer step, this "
                f"run has accumulate_grad_batches={batches}: keep {saved}, or resume from a "
                "checkpoint that was saved after a step."
            )
        for name, gradient in self._open_window["gradients"].items():
            self.get_parameter(name).grad = gradient.to(self.device)
        self._counts = tuple(torch.tensor(self._open_window["counts"], device=self.device))
        self._open_window = None

    def _leave_batch(self) -> None:
        if self._outer is None:
            return
        cpu, gpu = self._outer
        torch.set_rng_state(cpu)
        if gpu is not None:
            torch.cuda.set_rng_state(gpu, self.device)
        self._outer = None
