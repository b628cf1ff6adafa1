"""Hold the old rows where they are while the new rows train: GradMaskNewRows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from typing_extensions import override

from lightning_vocab.callbacks.phase import PhaseCallback, PhaseControl
from lightning_vocab.distributed import refuse_sharded_strategy
from lightning_vocab.rows.held_rows import HeldRows
from lightning_vocab.rows.locate import find_split
from lightning_vocab.rows.roles import embedding_parameters
from lightning_vocab.vocabulary.folder import load_expansion


class GradMaskNewRows(PhaseCallback):
    """Keeps every old row of the embedding and the head bit for bit as it is; new rows train.

    In a model with split rows the old ones are frozen as a parameter, at no cost. In an ordinary
    model their gradient is set to zero before clipping, so the norm counts new rows only, and the
    rows are put back after the optimizer's step, for weight decay and old momentum move a row whose
    gradient is zero. That takes one copy of each trained matrix (head bias included), alive only
    from just before the step to its end, when the activations are gone already.

    Works with `FreezeBackbone` and without: old rows train when the phase lets them and no mask
    holds them. Once the mask ends, AdamW's step count of an ordinary matrix is already high while
    the old rows' moments are zero, so their first steps are larger than lr; split rows start fresh.

    Args:
        until_step: Number of optimizer steps during which the old rows are held. The whole run by
            default.
        new_ids: Ids of the new rows. Known already where the rows are split.
        expansion_dir: Expansion folder whose manifest names the new ids, instead of new_ids.
        attribute: Dotted name of the attribute that holds the causal language model. Needed only
            where the LightningModule holds several.

    Raises:
        ValueError: If both new_ids and expansion_dir are given, or a value is out of range.
        MisconfigurationException: At the start of a fit, if the strategy is not supported, the ids
            do not fit the model, no row would be held, or no optimizer trains the rows.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from lightning_vocab.callbacks.phase import are_old_rows_masked
        >>> quiet = dict(logger=False, enable_checkpointing=False, accelerator="cpu")
        >>> trainer = Trainer(callbacks=[GradMaskNewRows(until_step=100, new_ids=[300])], **quiet)
        >>> are_old_rows_masked(trainer)
        True
    """

    def __init__(
        self,
        until_step: int | None = None,
        new_ids: list[int] | None = None,
        expansion_dir: str | None = None,
        attribute: str | None = None,
    ) -> None:
        super().__init__(attribute)
        if until_step is not None and until_step < 1:
            raise ValueError(f"Expected until_step of at least 1, got {until_step}.")
        if new_ids is not None and expansion_dir is not None:
            raise ValueError("Expected new_ids or expansion_dir, got both. Give one of them.")
        if new_ids is not None and (not new_ids or min(new_ids) < 0):
            raise ValueError(f"Expected at least one id, none below 0, got new_ids={new_ids}.")
        self.until_step = until_step
        self.new_ids = new_ids
        self.expansion_dir = expansion_dir
        self._held: list[HeldRows] = []
        self._handles: list[RemovableHandle] = []

    @override
    def masks_old_rows(self, trainer: Trainer) -> bool:
        return self.until_step is None or trainer.global_step < self.until_step

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a strategy that shows a part of the rows and of their gradient."""
        if stage == "fit":
            refuse_sharded_strategy(trainer, type(self).__name__)
        super().setup(trainer, pl_module, stage)

    @override
    def prepare(self, trainer: Trainer, control: PhaseControl) -> None:
        """Find the rows and hook the optimizers; refuse ids that do not fit the model."""
        given = self._given_ids()
        split = find_split(control.model)
        if split is not None:
            _refuse_other_ids(given, split[0].rows.new_ids.tolist())
            return
        if given is None:
            raise MisconfigurationException(
                "GradMaskNewRows cannot know the new rows of an ordinary embedding. Give new_ids "
                "or expansion_dir."
            )
        self._held = [HeldRows(p, given) for p in _row_parameters(control.model, given)]
        self._handles = [_hook(optimizer, self._put_back) for optimizer in trainer.optimizers]
        trained = {id(p) for o in trainer.optimizers for g in o.param_groups for p in g["params"]}
        if not any(id(held.parameter) in trained for held in self._held):
            raise MisconfigurationException(
                "GradMaskNewRows expected the embedding or the head to train, got an optimizer "
                "without them. Give their parameters to the optimizer, with requires_grad=True."
            )

    @override
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Zero the gradient of the old rows and note their values. Clipping comes after this."""
        if self.masks_old_rows(trainer):
            for held in self._held:
                held.zero_gradient()
                held.keep()

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Drop what a step that a gradient scaler skipped has left."""
        for held in self._held:
            held.drop()

    @override
    def release(self) -> None:
        """Leave the model and the optimizers as they were before the fit."""
        super().release()
        for handle in self._handles:
            handle.remove()
        self._held, self._handles = [], []

    def _put_back(self, *_: Any) -> None:
        for held in self._held:
            held.put_back()

    def _given_ids(self) -> list[int] | None:
        if self.expansion_dir is None:
            return self.new_ids
        return list(load_expansion(self.expansion_dir).expansion.new_ids)


def _refuse_other_ids(given: Sequence[int] | None, split_ids: Sequence[int]) -> None:
    if given is not None and set(given) != set(split_ids):
        raise MisconfigurationException(
            f"GradMaskNewRows expected the {len(split_ids)} new ids of the split rows (from "
            f"{split_ids[0]} to {split_ids[-1]}), got {len(set(given))} ids from {min(given)} to "
            f"{max(given)}. Leave new_ids and expansion_dir out."
        )


def _row_parameters(model: PreTrainedModel, new_ids: Sequence[int]) -> list[nn.Parameter]:
    """What trains in the embedding and the head, one entry a row; a tied matrix once."""
    embedding = model.get_input_embeddings()
    weight = embedding.weight
    if not isinstance(weight, Tensor):
        raise MisconfigurationException(
            "GradMaskNewRows expected an embedding with one weight matrix, got "
            f"{type(embedding).__name__}. Use an ordinary or a split one."
        )
    num_rows = len(weight)
    if max(new_ids) >= num_rows:
        raise MisconfigurationException(
            f"GradMaskNewRows expected ids below {num_rows}, the rows of "
            f"{type(model).__name__}, got {max(new_ids)}. Expand the model first."
        )
    if len(set(new_ids)) == num_rows:
        raise MisconfigurationException(
            f"GradMaskNewRows expected old rows to hold, got all {num_rows} rows as new. Name the "
            "new rows only."
        )
    parameters = [p for p in embedding_parameters(model) if p.requires_grad]
    if getattr(embedding, "sparse", False) or any(len(p) != num_rows for p in parameters):
        raise MisconfigurationException(
            f"GradMaskNewRows knows dense embeddings and heads with {num_rows} rows in each "
            f"parameter, got {type(embedding).__name__} and "
            f"{type(model.get_output_embeddings()).__name__} with parameters of the shapes "
            f"{[tuple(p.shape) for p in parameters]}. Use ordinary or split ones."
        )
    return parameters


def _hook(optimizer: Optimizer, put_back: Any) -> RemovableHandle:
    if not isinstance(optimizer, Optimizer):
        raise MisconfigurationException(
            "GradMaskNewRows puts rows back in a step hook of torch.optim.Optimizer, got "
            f"{type(optimizer).__name__}. Use an optimizer derived from that class."
        )
    return optimizer.register_step_post_hook(put_back)
