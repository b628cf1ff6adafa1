"""A LightningModule that grows the vocabulary of a causal language model and trains it."""

from __future__ import annotations

from typing import Any

import torch
from lightning.fabric.utilities import rank_zero_info
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import override

from lightning_vocab.base import (
    check_dtype,
    choose_initializer,
    enable_checkpointing,
    load_base_model,
)
from lightning_vocab.checkpoints import MANIFEST_KEY, OPTIONS_KEY, refuse_other_vocabulary
from lightning_vocab.demo import resolve_base
from lightning_vocab.distributed import ShardableModule, whole_model
from lightning_vocab.exact_steps import ExactSteps
from lightning_vocab.functional.linear_cross_entropy import CHUNK_SIZE
from lightning_vocab.functional.loss_kernels import OWN
from lightning_vocab.fused_steps import leave_unscaling_to_the_trainer
from lightning_vocab.generation import continuations
from lightning_vocab.initializers import Initializer
from lightning_vocab.kernel_choice import KERNEL_KEY, KernelChoice
from lightning_vocab.loss import NextTokenLoss
from lightning_vocab.parameter_groups import parameter_groups
from lightning_vocab.resuming import Options, configured_options, keep_configured_options
from lightning_vocab.rows.expand import expand_model
from lightning_vocab.rows.export import export_model
from lightning_vocab.scoring import ScoredModule, log_fertility
from lightning_vocab.vocabulary import (
    ExpandedTokenizer,
    check_base,
    is_grown_base,
    load_expansion,
    load_tokenizer,
)


class VocabExpansionModule(ExactSteps, ShardableModule, ScoredModule):
    """Any causal language model with a grown vocabulary, ready for a Trainer.

    The model is loaded and expanded in `configure_model`: old and new rows become two Parameters,
    so the callbacks `FreezeBackbone` and `UnfreezeAt` decide which of them train. All parameter
    groups (``new_rows``, ``old_rows``, ``backbone_decay``, ``backbone_no_decay``) exist from the
    start, each with its own learning rate and weight decay.

    Logs ``train/loss_nats`` and, for each validation source, ``val/bits_per_byte/<source>``.

    Args:
        base: ``demo``, a local Hugging Face folder, or a hub id. A base that has grown by the
            expansion already, such as the folder that a grounding run exported, goes on with the
            rows that it has.
        expansion_dir: Folder of the grown tokenizer and its manifest. None trains the base as it
            is, with the vocabulary that it has.
        initializer: First value of the new rows; if None, `SubwordMean`, or `Keep` where the base
            has grown already. Another method given for such a base replaces rows that were trained,
            which is warned of.
        optimizer: Makes the optimizer from the parameter groups, whose own learning rates and
            decays go before those given here.
        lr_scheduler: Makes the schedule from the optimizer, stepped after each optimizer step.
        lr_new_rows: Learning rate of the new rows.
        lr_old_rows: Learning rate of the old rows, once they are unfrozen.
        lr_backbone: Learning rate of everything else, once it is unfrozen.
        weight_decay_rows: Weight decay of old and new rows; decay pulls rare rows to zero.
        weight_decay_backbone: Weight decay of the backbone's matrices; its vectors have none.
        pad_to_multiple_of: Round the number of rows up to a multiple of this.
        dtype: Dtype of the weights: ``float32``, ``bfloat16``, ``float16``, or ``auto`` for the
            checkpoint's own.
        chunk_size: Positions whose logits over rows that train are in memory at a time.
        skip_negligible: Leave rows out of the gradient of the hidden states that add less to it
            than its rounding does; the rows' own gradients are not touched.
        loss_kernel: ``own``, or ``fastest``: once all rows train, time the losses of torch (in
            float32) and liger-kernel (on a GPU) beside ours; take the fastest of equal ones.
        gradient_checkpointing: Compute the layers again in the backward pass, to save memory.
        initializer_seed: Seed of initializers that draw numbers; the same on every rank.
        max_new_tokens: Length of the text that the predict step generates.

    Raises:
        ValueError: If a learning rate or a decay is negative, or a size is not positive.

    Example:
        >>> module = VocabExpansionModule(base="demo", lr_new_rows=1e-3)
        >>> module.hparams["base"]
        'demo'
    """

    def __init__(
        self,
        base: str = "demo",
        expansion_dir: str | None = None,
        initializer: Initializer | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_new_rows: float = 1e-3,
        lr_old_rows: float = 1e-4,
        lr_backbone: float = 1e-5,
        weight_decay_rows: float = 0.0,
        weight_decay_backbone: float = 0.1,
        pad_to_multiple_of: int | None = None,
        dtype: str = "float32",
        chunk_size: int = CHUNK_SIZE,
        skip_negligible: bool = False,
        loss_kernel: str = OWN,
        gradient_checkpointing: bool = False,
        initializer_seed: int = 7,
        max_new_tokens: int = 64,
    ) -> None:
        super().__init__()
        numbers = (lr_new_rows, lr_old_rows, lr_backbone, weight_decay_rows, weight_decay_backbone)
        if min(numbers) < 0:
            raise ValueError(f"Learning rates and weight decays are not negative, got {numbers}.")
        check_dtype(dtype)
        multiple = 1 if pad_to_multiple_of is None else pad_to_multiple_of
        if min(chunk_size, max_new_tokens, multiple) < 1:
            raise ValueError("chunk_size, max_new_tokens and pad_to_multiple_of are at least 1.")
        # Callables and objects stay out: a checkpoint holds plain values and loads weights_only.
        self.save_hyperparameters(ignore=["initializer", "optimizer", "lr_scheduler"])
        self.initializer = initializer
        self.optimizer_callable = optimizer
        self.lr_scheduler_callable = lr_scheduler
        self.model: PreTrainedModel | None = None
        self.expanded: ExpandedTokenizer | None = None
        self.is_base_grown = False
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._loss: NextTokenLoss | None = None
        self._kernel = KernelChoice(loss_kernel)
        self._options: Options = {}
        self._saved_options: Options = {}

    # --- the model -------------------------------------------------------------------------------

    @override
    def configure_model(self) -> None:
        """Load the base, expand it, and divide it where the strategy shards parameters; once."""
        if self.model is not None:
            return
        base = resolve_base(self.hparams["base"])
        model = load_base_model(base, self.hparams["dtype"])
        folder = self.hparams["expansion_dir"]
        self._tokenizer = base_tokenizer = load_tokenizer(base)
        if folder is not None:
            self.expanded = load_expansion(folder)
            check_base(self.expanded, base_tokenizer)
            self._tokenizer = self.expanded.tokenizer
            self.is_base_grown = is_grown_base(self.expanded, base_tokenizer)
            initializer = choose_initializer(self.initializer, is_grown=self.is_base_grown)
            expand_model(
                model,
                self.expanded,
                initializer,
                is_grown=self.is_base_grown,
                pad_to_multiple_of=self.hparams["pad_to_multiple_of"],
                generator=torch.Generator().manual_seed(self.hparams["initializer_seed"]),
            )
            for remark in initializer.remarks():
                rank_zero_info(remark)
        if self.hparams["gradient_checkpointing"]:
            enable_checkpointing(model)
        self.shard(model)
        self.model = model.train()

    @property
    def language_model(self) -> PreTrainedModel:
        """The model, expanded if there is an expansion.

        Raises:
            RuntimeError: Before `configure_model` has run.
        """
        if self.model is None:
            raise RuntimeError("The model is not built yet: call configure_model() first.")
        return self.model

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the model, grown if there is an expansion."""
        if self._tokenizer is None:
            raise RuntimeError("The tokenizer is not loaded yet: call configure_model() first.")
        return self._tokenizer

    @property
    @override
    def loss(self) -> NextTokenLoss:
        """The loss over the model, streamed where the model allows it."""
        if self._loss is None:
            options = {name: self.hparams[name] for name in ("chunk_size", "skip_negligible")}
            self._loss = NextTokenLoss(self.language_model, **options)
        return self._loss

    def export(self, path: str, *, overwrite: bool = False) -> None:
        """Write the model and its tokenizer as a plain Hugging Face folder.

        Where parameters are divided among ranks every rank calls this, and rank 0 writes.

        Args:
            path: The new folder.
            overwrite: Whether an existing folder may be replaced.
        """
        model = whole_model(self.language_model) if self.is_sharded else self.language_model
        if model is not None:
            export_model(model, self.expanded or self.tokenizer, path, overwrite=overwrite)

    # --- the steps -------------------------------------------------------------------------------

    @override
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Mean next-token loss of a batch in nats, a scalar."""
        self.check_loss(batch)
        return self.loss.mean_nats(batch)

    @override
    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Mean next-token loss in nats over all ranks' tokens, logged as ``train/loss_nats``."""
        self.check_loss(batch)
        self._kernel.settle(self.loss, batch, self.trainer)
        mean_nats, loss = self.over_all_tokens(self(batch), batch["labels"], batch_idx)
        size = len(batch["input_ids"])
        self.log("train/loss_nats", mean_nats, prog_bar=True, batch_size=size, sync_dist=True)
        return loss

    @override
    def predict_step(
        self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> list[str]:
        """Continue each prompt of the batch greedily; the continuations as text."""
        length = self.hparams["max_new_tokens"]
        return continuations(self.language_model, self.tokenizer, batch, length)

    # --- the optimizer and the checkpoint --------------------------------------------------------

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One optimizer over all named groups, frozen ones too: nothing is ever added to it."""
        groups = parameter_groups(
            self.language_model,
            self,
            {name: self.hparams[f"lr_{name}"] for name in ("new_rows", "old_rows", "backbone")},
            weight_decay_rows=self.hparams["weight_decay_rows"],
            weight_decay_backbone=self.hparams["weight_decay_backbone"],
        )
        optimizer = self.optimizer_callable(groups)
        leave_unscaling_to_the_trainer(optimizer)
        self._options = configured_options(optimizer)
        if self.lr_scheduler_callable is None:
            return optimizer
        scheduler = self.lr_scheduler_callable(optimizer)
        if isinstance(scheduler, ReduceLROnPlateau):
            raise TypeError(
                "lr_scheduler is stepped after each optimizer step, a plateau schedule after each "
                "validation: override configure_optimizers to use one."
            )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    @override
    def on_train_start(self) -> None:
        """Log the fertility; hold to the rates and decays of this run, not to a checkpoint's."""
        super().on_train_start()
        log_fertility(self.trainer)
        if not self._options or not self._saved_options:
            return
        for change in keep_configured_options(
            self.trainer.optimizers[0],
            [each.scheduler for each in self.trainer.lr_scheduler_configs],
            self._options,
            self._saved_options,
        ):
            rank_zero_info(f"Resumed with another option for {change}.")

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the manifest of the vocabulary and the optimizer's options into the checkpoint."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[OPTIONS_KEY] = self._options
        checkpoint[KERNEL_KEY] = self._kernel.state
        if self.expanded is not None:
            checkpoint[MANIFEST_KEY] = self.expanded.expansion.to_json()

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another vocabulary.

        Raises:
            ValueError: If the checkpoint's manifest is not this module's.
        """
        super().on_load_checkpoint(checkpoint)
        self._saved_options = checkpoint.get(OPTIONS_KEY, {})
        self._kernel.state = checkpoint.get(KERNEL_KEY, {})

    @override
    def check_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        ours = None if self.expanded is None else self.expanded.expansion
        refuse_other_vocabulary(checkpoint, ours, self.hparams["pad_to_multiple_of"])
