"""What the new tokens get and what the model makes of them: NewTokenUsage."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from rich.console import Console
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from lightning_vocab.callbacks.adoption import Adoption, is_in_batch
from lightning_vocab.callbacks.requirements import module_with_new_rows
from lightning_vocab.callbacks.row_movement import RowMovement
from lightning_vocab.callbacks.spectrum_figure import can_draw
from lightning_vocab.callbacks.usage_figure import History, draw_usage
from lightning_vocab.callbacks.usage_output import (
    add_usage_figure,
    least_trained_table,
    takes_figure,
)
from lightning_vocab.distributed import refuse_sharded_strategy
from lightning_vocab.loss import evaluating
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.rows import SplitRows, find_split
from lightning_vocab.vocabulary.wording import some

_KEY = "lightning_vocab_batches_per_new_row"
"""Where a checkpoint holds the counts."""


class NewTokenUsage(Callback):
    """Counts how often each new row was trained, and how far the model has adopted the new tokens.

    Logged under ``usage/``, every so many optimizer steps:

    - ``untouched_rows``: new rows whose token has stood in no training batch so far, as an input or
      as a target. Such a row has moved, if at all, only because others were the target.
    - ``batches_per_row_median``, ``batches_per_row_smallest``: batches, of all ranks, in which a
      new token stood; each is a direct gradient of its row.
    - ``gradient_norm_new``, ``gradient_norm_old``: Euclidean norm of the gradient of the new and of
      the old rows (0 while they are frozen), input and output rows together, before clipping;
    - ``update_norm_new``, ``update_norm_old``: root mean square, over the rows, of how far a row
      moved in the step; of the old rows a sample is watched.

    And after each validation, from the first batches of each source:

    - ``adoption/<source>``: where the target is a new token, how often the model's best token is a
      new one, too;
    - ``new_token_mass/<source>``: mean probability of all new tokens together, over all positions,
      and ``new_token_share/<source>``, the share of targets that are new tokens: what the mass
      tends to.

    At the end a table lists the rows least trained, and where matplotlib is installed, a
    TensorBoardLogger gets a figure of all this over the steps, and the folder of a CSVLogger a file
    ``new_token_usage.png``.

    Needs a `VocabExpansionModule` with an expansion. Cost: a count over the ids of each batch; a
    step that is measured copies the new rows and the sampled old ones once more; a validation
    scores its first batches twice. A model whose loss cannot be streamed has no adoption and no
    mass; a warning says so.

    Args:
        every_n_steps: Optimizer steps from one measurement to the next.
        num_val_batches: Batches of each validation source and rank that adoption is measured on.
        num_old_rows: Old rows whose movement is watched, at most.
        max_rows: Lines of the table at the end; 0 for no table.

    Raises:
        ValueError: If a number is below 1, or max_rows below 0.
        MisconfigurationException: At the start of a fit, if there is no new row to watch, or the
            strategy shards the rows.

    Example:
        >>> NewTokenUsage(every_n_steps=50).every_n_steps
        50
    """

    def __init__(
        self,
        every_n_steps: int = 100,
        num_val_batches: int = 4,
        num_old_rows: int = 1024,
        max_rows: int = 10,
    ) -> None:
        if min(every_n_steps, num_val_batches, num_old_rows) < 1 or max_rows < 0:
            raise ValueError(
                "Expected every_n_steps, num_val_batches and num_old_rows of at least 1 and "
                f"max_rows of at least 0, got {every_n_steps}, {num_val_batches}, {num_old_rows} "
                f"and {max_rows}."
            )
        self.every_n_steps = every_n_steps
        self.num_val_batches = num_val_batches
        self.num_old_rows = num_old_rows
        self.max_rows = max_rows
        self.latest: dict[str, float] = {}
        self.history: History = {}
        self._batches: Tensor | None = None
        self._movement: RowMovement | None = None
        self._adoption = Adoption()
        self._is_told = False

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse another kind of module and a run without new tokens; start the counts anew."""
        if stage != "fit":
            return
        self._batches, self.history = None, {}  # a checkpoint is loaded after this
        self._is_told = False
        refuse_sharded_strategy(trainer, type(self).__name__)
        module_with_new_rows(pl_module, type(self).__name__)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the rows; a resumed run goes on counting, as far as the checkpoint has counts."""
        rows = _rows(pl_module)
        self._movement = RowMovement(rows, self.num_old_rows)
        if self._batches is None:
            if trainer.global_step > 0 and trainer.is_global_zero:
                rank_zero_warn(
                    f"The checkpoint of step {trainer.global_step} holds no counts of the new "
                    "tokens: NewTokenUsage counts from here on, and calls rows untouched that an "
                    "earlier part of the run may have trained."
                )
            self._batches = torch.zeros(len(rows[0].new), dtype=torch.long)
        self._batches = self._batches.to(pl_module.device)

    @property
    def batches_per_row(self) -> Tensor:
        """Batches that this rank has seen each new token in, ``(num_new,)``, in order of id."""
        if self._batches is None:
            raise RuntimeError("Nothing is counted yet: the counting starts with fit.")
        return self._batches

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the new tokens of the batch."""
        self.batches_per_row.add_(is_in_batch(_rows(pl_module)[0], batch))

    @override
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Measure the gradients, and keep the rows as they are before the step."""
        if self._movement is not None and (trainer.global_step + 1) % self.every_n_steps == 0:
            self._movement.before_step()

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log what a measured step did."""
        assert self._movement is not None
        if self._movement.is_pending:
            self._log(trainer, {**self._movement.after_step(), **self._counts(trainer)})

    @override
    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the sums anew."""
        self._adoption = Adoption()

    @override
    @torch.no_grad()
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure adoption and mass on the first batches."""
        assert isinstance(pl_module, VocabExpansionModule)
        is_run = self._movement is not None and not trainer.sanity_checking
        if not is_run or batch_idx >= self.num_val_batches:
            return
        if not pl_module.loss.is_streamed:
            self._tell_of_no_shares(pl_module)
            return
        rows = _rows(pl_module)[-1]
        with evaluating(pl_module):
            shares = pl_module.loss.shares(batch)
        source = pl_module.source_name("val", dataloader_idx)
        self._adoption.add(source, rows, shares, batch["labels"])

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log adoption and mass, summed over ranks."""
        figures = self._adoption.figures(partial(_summed, trainer))
        self._adoption = Adoption()
        if figures:
            self._log(trainer, figures)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the counts of the whole run, list the rarest rows, and name those never touched."""
        self._log(trainer, self._counts(trainer))
        counts = _summed(trainer, self.batches_per_row).cpu()
        assert isinstance(pl_module, VocabExpansionModule)
        assert pl_module.expanded is not None
        tokens = pl_module.expanded.expansion.tokens
        if trainer.is_global_zero:
            if self.max_rows:
                Console().print(least_trained_table(tokens, counts, self.max_rows))
            if can_draw() and any(map(takes_figure, trainer.loggers)):
                add_usage_figure(trainer, draw_usage(self.history, counts))
        untouched = [tokens[i].surface for i in (counts == 0).nonzero().flatten().tolist()]
        if untouched:
            rank_zero_warn(
                f"{len(untouched)} of {len(tokens)} new tokens stood in no training batch: "
                f"{some(untouched)}. Their rows are hardly better than at the start: train longer, "
                "give more text in which they occur, or add fewer tokens."
            )

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"history": {name: list(points) for name, points in self.history.items()}}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = {
            name: [(int(step), float(value)) for step, value in points]
            for name, points in state_dict["history"].items()
        }

    @override
    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the counts of all ranks."""
        if self._batches is not None:
            checkpoint[_KEY] = _summed(trainer, self._batches).cpu()

    @override
    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on from the counts, on rank zero alone: they are summed over ranks."""
        if trainer.is_global_zero:
            self._batches = checkpoint.get(_KEY)

    def _tell_of_no_shares(self, pl_module: VocabExpansionModule) -> None:
        if not self._is_told:
            rank_zero_warn(
                "NewTokenUsage measures no adoption and no mass of new tokens in this run: the "
                f"loss of {type(pl_module.language_model).__name__} is its own, not a plain head "
                "over hidden states. Counts, gradients and movements are measured."
            )
        self._is_told = True

    def _counts(self, trainer: Trainer) -> dict[str, float]:
        counts = _summed(trainer, self.batches_per_row)
        return {
            "untouched_rows": float((counts == 0).sum()),
            "batches_per_row_median": float(counts.double().quantile(0.5)),
            "batches_per_row_smallest": float(counts.min()),
        }

    def _log(self, trainer: Trainer, figures: dict[str, float]) -> None:
        named = {f"usage/{name}": value for name, value in figures.items()}
        self.latest.update(named)
        for name, value in named.items():
            self.history.setdefault(name, []).append((trainer.global_step, value))
        trainer.callback_metrics.update({name: torch.tensor(named[name]) for name in named})
        for logger in trainer.loggers:
            logger.log_metrics(named, step=trainer.global_step)


def _rows(module: LightningModule) -> list[SplitRows]:
    """The split rows of the embedding and of the head, once where they are one object."""
    assert isinstance(module, VocabExpansionModule)
    split = find_split(module.language_model)
    assert split is not None, "setup() has seen the expansion"
    return list(dict.fromkeys(part.rows for part in split))


def _summed(trainer: Trainer, own: Tensor) -> Tensor:
    total = trainer.strategy.reduce(own.clone(), reduce_op="sum")
    assert isinstance(total, Tensor)
    return total
