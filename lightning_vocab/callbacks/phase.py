"""The phase of a run: derived from the Trainer's callbacks and its state, never counted up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lightning.fabric.utilities import rank_zero_info
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from transformers import PreTrainedModel
from typing_extensions import override

from lightning_vocab.distributed import refuse_unsupported_strategy, rewrap
from lightning_vocab.rows.locate import find_causal_lm
from lightning_vocab.rows.roles import PHASES, ParameterRoles, Phase, parameter_roles


class PhaseCallback(Callback):
    """A callback that has a say in which parameters train.

    The first one in the Trainer's list acts for all of them, and what it does depends on no order:
    it collects every vote, sets ``requires_grad`` when the outcome changes, and gives the
    parameters back as it found them when the fit ends.

    Args:
        attribute: Dotted name of the attribute that holds the causal language model, where the
            LightningModule holds several.
    """

    def __init__(self, attribute: str | None = None) -> None:
        self.attribute = attribute
        self._control: PhaseControl | None = None

    def vote(self, trainer: Trainer) -> Phase | None:
        """The phase that this callback asks for now, or None; the furthest vote wins."""
        return None

    def masks_old_rows(self, trainer: Trainer) -> bool:
        """Whether this callback keeps the old rows where they are now; one such is enough."""
        return False

    def prepare(self, trainer: Trainer, control: PhaseControl) -> None:
        """Get ready for the model before its first batch; refuse one where nothing can be done."""

    def release(self) -> None:
        """Leave the model as it was before the fit."""
        if self._control is not None:
            self._control.give_back()
            self._control = None

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse an unsupported strategy."""
        if stage == "fit":
            refuse_unsupported_strategy(trainer, type(self).__name__)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what trains as found, and apply the phase.

        The first hook at which layers are built and all state is restored.
        """
        members = phase_callbacks(trainer)
        if members[0] is not self:
            return
        self._control = PhaseControl.find(trainer, pl_module)
        for member in members:
            member.prepare(trainer, self._control)
        self._control.apply(trainer)

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Apply the phase, between two accumulation windows and never inside one."""
        if self._control is not None and batch_idx % trainer.accumulate_grad_batches == 0:
            self._control.apply(trainer)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the model as it was before the fit."""
        self.release()

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave the model as it was before the fit."""
        self.release()


@dataclass
class PhaseControl:
    """The switch for the parameters of one language model during one fit.

    A parameter that was frozen before the fit (the base weights of a LoRA, say) stays so in every
    phase: only what trained when the fit began is ever switched. A restart builds the module in the
    same way, so it finds the same.

    Args:
        model: The language model.
        roles: Its parameters by role.
        found: The parameters that trained when the fit began.
    """

    model: PreTrainedModel
    roles: ParameterRoles
    found: tuple[nn.Parameter, ...]
    _applied: tuple[Phase, bool] | None = field(default=None, init=False)

    @classmethod
    def find(cls, trainer: Trainer, module: LightningModule) -> PhaseControl:
        """The control over the model that all callbacks of the Trainer mean.

        Raises:
            MisconfigurationException: If two callbacks name different models.
        """
        members = phase_callbacks(trainer)
        names = {member.attribute for member in members} - {None}
        models = [find_causal_lm(module, name) for name in names or {None}]
        if any(model is not models[0] for model in models):
            raise MisconfigurationException(
                "FreezeBackbone and GradMaskNewRows must name the same model, got the attributes "
                f"{sorted(map(str, names))}. Give each the same one."
            )
        roles = parameter_roles(models[0])
        return cls(models[0], roles, tuple(p for p in roles.everything() if p.requires_grad))

    def trainable(self, phase: Phase, *, old_rows_masked: bool = False) -> list[nn.Parameter]:
        """What trains in a phase: its parameters, less those that were frozen as found."""
        found = {id(parameter) for parameter in self.found}
        chosen = self.roles.in_phase(phase, old_rows_masked=old_rows_masked)
        return [parameter for parameter in chosen if id(parameter) in found]

    def apply(self, trainer: Trainer) -> None:
        """Set ``requires_grad`` to what the Trainer's state asks for, on a change only.

        A parameter that turns frozen loses its gradient, so the optimizer neither steps it nor
        keeps a state for it.

        Raises:
            MisconfigurationException: If nothing of the model would train.
        """
        decision = derive_phase(trainer), are_old_rows_masked(trainer)
        if decision == self._applied:
            return
        trainable = self.trainable(decision[0], old_rows_masked=decision[1])
        if not trainable:
            raise MisconfigurationException(
                f"Expected at least one trainable parameter in phase {decision[0]!r}, got none: "
                "they were frozen before the fit. Leave the new rows trainable."
            )
        self._applied = decision
        if not _set_trainable(self.found, trainable):
            return
        rewrap(trainer)
        count, total = (sum(p.numel() for p in ps) for ps in (trainable, self.roles.everything()))
        rank_zero_info(
            f"Phase {decision[0]!r} from step {trainer.global_step}: {count:,} of {total:,} "
            "parameters of the language model train."
        )

    def give_back(self) -> None:
        """Make everything trainable that was so when the fit began."""
        for parameter in self.found:
            parameter.requires_grad_(True)


def derive_phase(trainer: Trainer) -> Phase:
    """The phase that the Trainer's callbacks and its state ask for, in any order of the callbacks.

    The furthest phase among those that are due; ``full`` where no callback freezes anything.
    """
    votes = [member.vote(trainer) for member in phase_callbacks(trainer)]
    return max((vote for vote in votes if vote is not None), key=PHASES.index, default="full")


def are_old_rows_masked(trainer: Trainer) -> bool:
    """Whether a mask holds the old rows now, whatever the phase."""
    return any(member.masks_old_rows(trainer) for member in phase_callbacks(trainer))


def phase_callbacks(trainer: Trainer) -> list[PhaseCallback]:
    """The callbacks of the Trainer that have a say in the phase, in its order."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set elsewhere
    return [callback for callback in callbacks if isinstance(callback, PhaseCallback)]


def _set_trainable(among: tuple[nn.Parameter, ...], trainable: list[nn.Parameter]) -> bool:
    """Whether any flag among the given parameters had to change."""
    wanted = {id(parameter) for parameter in trainable}
    changed = [p for p in among if p.requires_grad != (id(p) in wanted)]
    for parameter in changed:
        parameter.requires_grad_(id(parameter) in wanted)
        if not parameter.requires_grad:
            parameter.grad = None
    return bool(changed)
