"""Train the new rows alone first, then more: FreezeBackbone and UnfreezeAt."""

from __future__ import annotations

from typing import Any, Literal

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from lightning_vocab.callbacks.phase import PhaseCallback, PhaseControl, phase_callbacks
from lightning_vocab.rows.roles import Phase


class FreezeBackbone(PhaseCallback):
    """Freezes the language model but for its new rows, until an `UnfreezeAt` is due.

    In a model with split rows, old rows and backbone have no gradient and no optimizer state while
    they are frozen, so neither weight decay nor momentum can move them. In an ordinary model the
    whole embedding and head go on training: add `GradMaskNewRows` to hold the old rows. Parameters
    outside the language model, and those that were frozen before the fit, are left alone in every
    phase. After the fit everything is as trainable as it was before.

    Works with one device, with DDP, which is wrapped anew at each change, and for a
    `VocabExpansionModule` with ModelParallelStrategy and `torch.compile`. Give the optimizer all
    parameters from the start and add none later: then schedulers, resume and several unfreezings
    just work.

    Args:
        attribute: Dotted name of the attribute that holds the causal language model. Needed only
            where the LightningModule holds several.

    Raises:
        MisconfigurationException: At the start of a fit, if the strategy is not supported, the
            Trainer has a second `FreezeBackbone`, there is nothing to freeze, or nothing would
            train.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from lightning_vocab.callbacks.phase import derive_phase
        >>> quiet = dict(logger=False, enable_checkpointing=False, accelerator="cpu")
        >>> derive_phase(Trainer(callbacks=[FreezeBackbone(), UnfreezeAt(step=200)], **quiet))
        'frozen'
    """

    def __init__(self, attribute: str | None = None) -> None:
        super().__init__(attribute)

    @override
    def vote(self, trainer: Trainer) -> Phase:
        return "frozen"

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse an unsupported strategy and a second FreezeBackbone."""
        super().setup(trainer, pl_module, stage)
        count = sum(isinstance(member, FreezeBackbone) for member in phase_callbacks(trainer))
        if count > 1:
            raise MisconfigurationException(
                f"Expected one FreezeBackbone in the Trainer, got {count}. Remove all but one."
            )

    @override
    def prepare(self, trainer: Trainer, control: PhaseControl) -> None:
        """Refuse a model in which nothing would be frozen."""
        if len(control.trainable("frozen")) == len(control.found):
            raise MisconfigurationException(
                "FreezeBackbone expected trainable parameters outside the "
                f"{'new rows' if control.roles.is_split else 'embedding and head'} of "
                f"{type(control.model).__name__}, got none. Remove the callback, or make the "
                "backbone trainable before the fit."
            )


class UnfreezeAt(PhaseCallback):
    """Ends the freezing of `FreezeBackbone` at a step, at an epoch, or when a metric stalls.

    Several may stand in one Trainer, in any order; of those that are due, the furthest phase holds.
    A step or an epoch is compared with the Trainer's own counters of steps and batches and nothing
    is remembered, so a resumed run is in the right phase; for an epoch, resume with as many batches
    an epoch as before. A stall is remembered in the checkpoint; all ranks take the
    value that rank 0 sees. A checkpoint written at a batch right before a validation resumes
    without that validation, as Lightning has it, so a stall may then be seen one validation later.
    Under gradient accumulation a change waits for the next window.

    Args:
        step: Number of optimizer steps after which to unfreeze.
        epoch: Number of epochs after which to unfreeze.
        monitor: Name of a logged metric; unfreeze when it stalls.
        patience: Validations in a row without improvement that make a stall.
        min_delta: Smallest change of the metric that counts as an improvement.
        mode: Whether the metric improves downwards (``min``) or upwards (``max``).
        phase: What trains from then on: ``embeddings`` (new and old rows) or ``full`` (everything).

    Raises:
        ValueError: Unless exactly one of step, epoch and monitor is given, and every value is in
            its range.
        MisconfigurationException: At the start of a fit, if there is no `FreezeBackbone`, a metric
            is monitored without a validation, or ``embeddings`` is asked for where the rows are not
            split; after a validation, if the metric was not logged.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from lightning_vocab.callbacks.phase import derive_phase
        >>> quiet = dict(logger=False, enable_checkpointing=False, accelerator="cpu")
        >>> unfreeze = UnfreezeAt(monitor="val/bits_per_byte", patience=2, phase="embeddings")
        >>> unfreeze.load_state_dict({"best": 1.25, "num_stalled": 2, "is_due": True})
        >>> derive_phase(Trainer(callbacks=[unfreeze, FreezeBackbone()], **quiet))
        'embeddings'
    """

    def __init__(
        self,
        step: int | None = None,
        epoch: int | None = None,
        monitor: str | None = None,
        patience: int = 3,
        min_delta: float = 0.0,
        mode: Literal["min", "max"] = "min",
        phase: Literal["embeddings", "full"] = "full",
    ) -> None:
        super().__init__()
        _check_trigger(step, epoch, monitor)
        if patience < 1 or min_delta < 0:
            raise ValueError(
                "Expected patience of at least 1 and min_delta of at least 0, got "
                f"patience={patience} and min_delta={min_delta}."
            )
        if mode not in ("min", "max"):
            raise ValueError(f"Expected mode 'min' or 'max', got {mode!r}.")
        if phase not in ("embeddings", "full"):
            raise ValueError(f"Expected phase 'embeddings' or 'full', got {phase!r}.")
        self.step = step
        self.epoch = epoch
        self.monitor = monitor
        self.patience = patience
        self.min_delta = min_delta
        self.mode = mode
        self.phase: Phase = phase
        self._best: float | None = None
        self._num_stalled = 0
        self._is_due = False

    def should_unfreeze(self, trainer: Trainer) -> bool:
        """Whether the step, the epoch or the stall has come."""
        if self.step is not None:
            return trainer.global_step >= self.step
        if self.epoch is not None:
            return _finished_epochs(trainer) >= self.epoch
        return self._is_due

    @override
    def vote(self, trainer: Trainer) -> Phase | None:
        return self.phase if self.should_unfreeze(trainer) else None

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse an unsupported strategy and a Trainer that freezes nothing."""
        super().setup(trainer, pl_module, stage)
        if not any(isinstance(member, FreezeBackbone) for member in phase_callbacks(trainer)):
            raise MisconfigurationException(
                "UnfreezeAt expected a FreezeBackbone in the Trainer, got none, so there is "
                "nothing to unfreeze. Add FreezeBackbone, or remove UnfreezeAt."
            )

    @override
    def prepare(self, trainer: Trainer, control: PhaseControl) -> None:
        """Refuse a stall that can never be seen and a phase that would change nothing."""
        if self.monitor is not None and not trainer.enable_validation:
            raise MisconfigurationException(
                f"UnfreezeAt(monitor={self.monitor!r}) expected a validation during the fit, got "
                "none. Give a validation set, or unfreeze at a step or an epoch."
            )
        if self.phase == "embeddings" and not control.roles.is_split:
            raise MisconfigurationException(
                "UnfreezeAt(phase='embeddings') expected split rows, got the ordinary embedding of "
                f"{type(control.model).__name__}, which trains from the start. Hold its old rows "
                "with GradMaskNewRows(until_step=...) instead."
            )

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the metric, in a fit and after its sanity check."""
        if self.monitor is None or trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        if self.monitor not in trainer.callback_metrics:
            names = ", ".join(sorted(trainer.callback_metrics)) or "none"
            raise MisconfigurationException(
                f"UnfreezeAt expected the metric {self.monitor!r}, got: {names}. Log it in the "
                "validation, or monitor one of these."
            )
        self._observe(trainer.strategy.broadcast(float(trainer.callback_metrics[self.monitor])))

    def _observe(self, value: float) -> None:
        """Count validations without improvement; a value that is not a number is none."""
        sign = 1.0 if self.mode == "min" else -1.0
        is_first = self._best is None and value == value
        if is_first or (self._best is not None and sign * (self._best - value) > self.min_delta):
            self._best = value
            self._num_stalled = 0
        else:
            self._num_stalled += 1
        self._is_due = self._is_due or self._num_stalled >= self.patience

    @property
    @override
    def state_key(self) -> str:
        """Sets several instances apart; patience may change on resume without loss of the state."""
        return self._generate_state_key(
            step=self.step, epoch=self.epoch, monitor=self.monitor, phase=self.phase
        )

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "num_stalled": self._num_stalled, "is_due": self._is_due}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best = state_dict["best"]
        self._num_stalled = state_dict["num_stalled"]
        self._is_due = state_dict["is_due"]


def _finished_epochs(trainer: Trainer) -> int:
    """Epochs whose last batch was trained on, counted by batches.

    Lightning's own count (2.6) is one too high after a resume from the end of an epoch or from a
    stop at ``max_steps``. Batches without a known number leave only that count.
    """
    per_epoch = trainer.num_training_batches
    if isinstance(per_epoch, float):  # infinity
        return trainer.current_epoch
    finished: int = trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]  # declared for the base class
    return finished // per_epoch


def _check_trigger(step: int | None, epoch: int | None, monitor: str | None) -> None:
    given = {"step": step, "epoch": epoch, "monitor": monitor}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) != 1:
        raise ValueError(f"Expected exactly one of step, epoch and monitor, got {given or 'none'}.")
    for name, count in (("step", step), ("epoch", epoch)):
        if count is not None and count < 1:
            raise ValueError(f"Expected {name} of at least 1, got {count}: 0 would freeze nothing.")
