"""Token distillation as a trained stage: the student reads new tokens, the teacher their pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any, ClassVar

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from lightning_vocab.data.rows import IGNORED
from lightning_vocab.distillation.loss import balanced, hidden_mse
from lightning_vocab.distillation.refusals import (
    check_callbacks,
    check_layer,
    check_layer_of_base,
    check_options,
    checked_data,
)
from lightning_vocab.functional.linear_cross_entropy import CHUNK_SIZE, linear_cross_entropy
from lightning_vocab.initializers import Initializer
from lightning_vocab.loss import evaluating
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.rows.held_rows import HeldRows
from lightning_vocab.rows.locate import find_split
from lightning_vocab.rows.roles import parameter_roles
from lightning_vocab.rows.split import SplitRows, base_view


class DistillationModule(VocabExpansionModule):
    """Teaches each new row to do what the pieces of its token do, as token distillation does.

    Student and teacher are one model: the student reads text in new tokens, the teacher reads it in
    base tokens through the old rows (`base_view`), without a gradient. Their hidden states are
    matched wherever both have read the same text, from the first new token on. Both run without
    dropout, which would be noise in the target. Only the new rows may train: the Trainer needs
    `FreezeBackbone` and the data of `DistillationDataModule`.

    The hidden loss teaches a row to be read, and nothing about when its token is to be written. The
    output loss does that: the next-token loss of the student, whose hidden states get no gradient
    from it, in balance with the hidden loss. Without it the output rows of an untied head stay as
    they are. A tied row has both parts to play: the hidden loss alone then drives its logit astray
    (on a small tied model, the bits per byte doubled), so leave the output loss on.

    Cost of a step: a forward pass over the pieces and a forward and backward pass over the tokens.
    A layer below the last one saves the later layers in the backward pass only.

    Logs ``train/hidden_mse``, with the output loss ``train/loss_nats``, and
    ``val/bits_per_byte/<source>``.

    The method is "Token Distillation" (arXiv 2505.20133); there, lr is 1e-4 for models of
    billions of parameters. Tiny models need more.

    Args:
        base: ``demo``, a local Hugging Face folder, or a hub id.
        expansion_dir: Folder of the grown tokenizer and its manifest.
        initializer: First value of the new rows; `SubwordMean` if None.
        optimizer: Makes the optimizer from the parameter groups, whose own learning rates and
            decays go before those given here.
        lr_scheduler: Makes the schedule from the optimizer, stepped after each optimizer step.
        lr_new_rows: Learning rate of the new rows.
        weight_decay_rows: Weight decay of the new rows; decay pulls rare rows to zero.
        layer: Whose output is matched: 1 is the first layer, -1 the last. The last is taken behind
            the final norm, as the model gives it.
        output_loss: Whether the output loss is added.
        output_loss_weight: How hard the output loss pulls, where the hidden loss pulls with 1. A
            tied model, in which both pull at the same rows, may gain from more, such as 4.
        pad_to_multiple_of: Round the number of rows up to a multiple of this.
        dtype: Dtype of the weights: ``float32``, ``bfloat16``, ``float16``, or ``auto`` for the
            checkpoint's own.
        chunk_size: Positions whose logits over rows that train are in memory at a time.
        initializer_seed: Seed of initializers that draw numbers; the same on every rank.

    Raises:
        ValueError: If there is no expansion folder, the layer is 0, a rate, a decay or a weight is
            negative, or a size is not positive.

    Example:
        >>> module = DistillationModule("demo", "runs/expansion", lr_new_rows=1e-3)
        >>> module.hparams["layer"], module.hparams["output_loss"]
        (-1, True)
    """

    is_shardable: ClassVar[bool] = False

    def __init__(
        self,
        base: str = "demo",
        expansion_dir: str | None = None,
        initializer: Initializer | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_new_rows: float = 1e-4,
        weight_decay_rows: float = 0.0,
        layer: int = -1,
        output_loss: bool = True,
        output_loss_weight: float = 1.0,
        pad_to_multiple_of: int | None = None,
        dtype: str = "float32",
        chunk_size: int = CHUNK_SIZE,
        initializer_seed: int = 7,
    ) -> None:
        check_options(expansion_dir, layer, output_loss_weight)
        super().__init__(
            base=base,
            expansion_dir=expansion_dir,
            initializer=initializer,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            lr_new_rows=lr_new_rows,
            weight_decay_rows=weight_decay_rows,
            pad_to_multiple_of=pad_to_multiple_of,
            dtype=dtype,
            chunk_size=chunk_size,
            initializer_seed=initializer_seed,
        )
        # Under the command line the hyperparameters are this class's own arguments alone.
        inherited = signature(VocabExpansionModule).parameters
        for name in inherited.keys() - {"initializer", "optimizer", "lr_scheduler"}:
            self.hparams.setdefault(name, inherited[name].default)
        self._held: list[HeldRows] = []

    # --- before the first step -------------------------------------------------------------------

    @override
    def configure_callbacks(self) -> Sequence[Callback] | Callback:
        """Add none: the first hook of a fit, before the data are grown, tokenised and mined.

        Raises:
            MisconfigurationException: In a fit, if the data module is another, the Trainer has no
                `FreezeBackbone` or an `UnfreezeAt`, or the base's config has no such layer.
        """
        if self.trainer.state.fn == TrainerFn.FITTING:
            checked_data(self.trainer)
            check_callbacks(self.trainer)
            check_layer_of_base(self.hparams["layer"], self.hparams["base"])
        return super().configure_callbacks()

    @override
    def configure_model(self) -> None:
        """Load the base and expand it, once; freeze output rows that nothing would teach."""
        if self.model is not None:
            return
        super().configure_model()
        if not self.hparams["output_loss"]:
            _, output_rows = self._rows
            for parameter in (output_rows.new, output_rows.new_bias):
                if parameter is not None and parameter is not self._rows[0].new:
                    parameter.requires_grad_(False)

    @override
    def on_fit_start(self) -> None:
        """Refuse a model or a layer that does not fit, and note the rows that are held.

        Raises:
            MisconfigurationException: If the model gives no hidden states, or has no such layer.
        """
        data = checked_data(self.trainer)
        self._check_layer()
        held = torch.tensor(data.held_ids, dtype=torch.long, device=self.device)
        if not len(held):
            return
        for rows in {id(rows): rows for rows in self._rows}.values():
            taught = torch.isin(rows.new_ids, held, invert=True).nonzero().flatten().tolist()
            parameters = [p for p in (rows.new, rows.new_bias) if p is not None]
            self._held += [HeldRows(p, taught) for p in parameters if p.requires_grad]

    @override
    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Refuse to train more than the new rows: the teacher would move with the student.

        Raises:
            MisconfigurationException: If anything else is trainable.
        """
        super().on_train_batch_start(batch, batch_idx)
        new = {id(parameter) for parameter in parameter_roles(self.language_model).new_rows}
        moving = [n for n, p in self.named_parameters() if p.requires_grad and id(p) not in new]
        if moving:
            raise MisconfigurationException(
                f"{type(self).__name__} trains new rows alone, since the rest of the model is its "
                f"teacher; got {len(moving)} more trainable parameters, such as {moving[0]}. Add "
                "FreezeBackbone to the Trainer's callbacks, and no UnfreezeAt."
            )

    # --- the step --------------------------------------------------------------------------------

    @override
    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """The hidden loss, in balance with the output loss if that is on."""
        size = len(batch["input_ids"])
        with evaluating(self.language_model):
            with torch.no_grad(), base_view(self.language_model):
                teacher, _ = self._states(batch["teacher_ids"], batch["teacher_mask"])
            student, last = self._states(batch["input_ids"], batch["attention_mask"])
        loss = hidden_mse(student, teacher, batch["teacher_positions"])
        self.log("train/hidden_mse", loss, prog_bar=True, batch_size=size, sync_dist=True)
        if not self.hparams["output_loss"]:
            return loss
        nats = self._output_nats(batch, last)
        self.log("train/loss_nats", nats, prog_bar=True, batch_size=size, sync_dist=True)
        return balanced(loss, nats, self.hparams["output_loss_weight"])

    @override
    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Take tokens that occur too seldom out of the step; clipping comes after this."""
        for held in self._held:
            held.zero_gradient()
            held.keep()

    @override
    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Step, and give those tokens' rows back what weight decay has taken."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        for held in self._held:
            held.put_back()

    @override
    def on_fit_end(self) -> None:
        """Forget the rows of this fit."""
        self._held = []

    # --- parts -----------------------------------------------------------------------------------

    @property
    def _rows(self) -> tuple[SplitRows, SplitRows]:
        """The rows of the embedding and of the head: one object where the model is tied."""
        split = find_split(self.language_model)
        assert split is not None  # __init__ has asked for an expansion
        return split[0].rows, split[1].rows

    def _states(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states of the chosen layer and of the last one, each ``(batch, time, dim)``."""
        is_last = self.hparams["layer"] == -1
        output = self.language_model.base_model(
            input_ids=ids,
            attention_mask=mask,
            use_cache=False,
            output_hidden_states=not is_last,
        )
        last: Tensor = output.last_hidden_state
        return (last if is_last else output.hidden_states[self.hparams["layer"]]), last

    def _output_nats(self, batch: dict[str, Tensor], hidden: Tensor) -> Tensor:
        self.check_loss(batch)
        if not self.loss.is_streamed:
            raise MisconfigurationException(
                f"{type(self.language_model).__name__} does more between its hidden states and its "
                "logits than a scale and a cap, so the head cannot be trained apart from them: set "
                "output_loss to false."
            )
        targets, (_, rows) = batch["labels"][:, 1:], self._rows
        return linear_cross_entropy(
            hidden[:, :-1].detach(),
            rows.columns(targets),
            rows.blocks(),
            ignore_index=IGNORED,
            softcap=self.loss.softcap,
            logit_scale=self.loss.logit_scale,
            chunk_size=self.loss.chunk_size,
        )

    @torch.no_grad()
    def _check_layer(self) -> None:
        """Ask the model for the hidden states of one token."""
        model = self.language_model
        states: tuple[Tensor, ...] = ()
        if model.base_model is not model:
            probe = torch.zeros((1, 1), dtype=torch.long, device=self.device)
            with evaluating(model):
                output = model.base_model(
                    input_ids=probe, use_cache=False, output_hidden_states=True
                )
            states = getattr(output, "hidden_states", None) or ()
        if not states:
            raise MisconfigurationException(
                f"{type(model).__name__} gives no hidden states, which distillation matches: "
                "expected a model with a backbone that returns them (output_hidden_states)."
            )
        check_layer(self.hparams["layer"], len(states) - 1, type(model).__name__)
