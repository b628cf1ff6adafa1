"""How fast text is trained on, in tokens and in bytes: TextThroughputMonitor."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from typing_extensions import override

from lightning_vocab.data.rows import IGNORED
from lightning_vocab.vocabulary.measuring.token_bytes import token_bytes


class TextThroughputMonitor(Callback):
    """Logs the tokens and the bytes of text that are trained on in a second, over all ranks.

    Tokens cannot be compared across vocabularies, bytes can: a grown vocabulary that does fewer
    tokens a second may do more text. Every so many optimizer steps each logger gets, and
    ``trainer.callback_metrics`` and ``latest`` hold:

    - ``throughput/tokens_per_second`` and ``throughput/bytes_per_second``: of all ranks together,
    - ``throughput/bytes_per_token``: one over the other,
    - ``throughput/tokens_per_second_per_device``, ``throughput/bytes_per_second_per_device``: their
      mean over the ranks, where there are several.

    A token counts where it is a target, so in an epoch of `VocabDataModule` each token counts once
    and padding never, and the bytes are those of the text, in UTF-8 (see `token_bytes` for what is
    exact). Special tokens are no bytes. The first step, which is slower than the others, and the
    time of validation are left out.

    It is Lightning's ``ThroughputMonitor`` for text: nothing has to be given, so it can stand in a
    recipe; there are bytes; and the device is waited for when a figure is due, not in every batch.
    Cost: two sums over the ids of a batch; one small reduction over ranks where a figure is due.

    Args:
        every_n_steps: Optimizer steps from one figure to the next.

    Raises:
        ValueError: If every_n_steps is below 1.
        MisconfigurationException: At the start of a fit, if neither the data module nor the module
            has a tokenizer; at the first batch, if it has no ``input_ids`` and ``labels``.

    Example:
        >>> TextThroughputMonitor(every_n_steps=10).latest  # filled by fit
        {}
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        if every_n_steps < 1:
            raise ValueError(f"Expected every_n_steps of at least 1, got {every_n_steps}.")
        self.every_n_steps = every_n_steps
        self.latest: dict[str, float] = {}
        self._bytes_of_id = torch.zeros(0, dtype=torch.long)
        self._prefix = 0
        self._counts: Tensor | None = None  # tokens and bytes; None before the first step is done
        self._start = 0.0
        self._step = -1

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Weigh the tokens of the vocabulary."""
        sizes = token_bytes(_tokenizer(trainer, pl_module))
        self._bytes_of_id = torch.from_numpy(sizes.of_id).to(pl_module.device)
        self._prefix = sizes.prefix
        self._counts, self._step = None, trainer.global_step

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch; refuse one that holds no text."""
        if not isinstance(batch, Mapping) or not {"input_ids", "labels"} <= batch.keys():
            found = list(batch) if isinstance(batch, Mapping) else type(batch).__name__
            raise MisconfigurationException(
                "TextThroughputMonitor counts the targets of batches with input_ids and labels "
                f"(batch, time), got {found}. Leave it out, or use Lightning's ThroughputMonitor."
            )
        if self._counts is not None:
            self._counts += self.count(batch)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock after the first step; log where a figure is due."""
        step = trainer.global_step
        if self._counts is None:
            if step > self._step:
                self._restart(trainer, pl_module)
        elif step != self._step and step % self.every_n_steps == 0:
            self._log(trainer, pl_module)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._start -= self._now(pl_module)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the clock go on."""
        self._start += self._now(pl_module)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the steps since the last figure."""
        if self._counts is not None and trainer.global_step != self._step:
            self._log(trainer, pl_module)
        self._counts = None

    @torch.no_grad()
    def count(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Targets of a batch and the bytes that they stand for, ``(2,)``.

        Args:
            batch: ``input_ids`` and ``labels`` (not shifted), ``(batch, time)``.
        """
        ids, labels = batch["input_ids"][:, :-1], batch["labels"][:, 1:]
        is_target = labels != IGNORED
        sizes = self._bytes_of_id[labels.where(is_target, 0)]
        if self._prefix:
            # The blank in front of a text, behind a special token, is the tokenizer's own.
            is_first = (self._bytes_of_id[ids] == 0) & (sizes > 0)
            sizes = sizes - self._prefix * is_first
        return torch.stack([is_target.sum(), sizes.where(is_target, 0).sum()])

    def _log(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._counts is not None
        total = trainer.strategy.reduce(self._counts, reduce_op="sum")
        assert isinstance(total, Tensor)
        tokens, num_bytes = total.tolist()  # waits for the device
        seconds = self._now(pl_module) - self._start
        rates = {"tokens_per_second": tokens / seconds, "bytes_per_second": num_bytes / seconds}
        figures = {**rates, "bytes_per_token": num_bytes / tokens if tokens else float("nan")}
        if trainer.world_size > 1:
            figures |= {f"{name}_per_device": rates[name] / trainer.world_size for name in rates}
        self.latest = {f"throughput/{name}": value for name, value in figures.items()}
        trainer.callback_metrics.update({k: torch.tensor(v) for k, v in self.latest.items()})
        for logger in trainer.loggers:
            logger.log_metrics(self.latest, step=trainer.global_step)
        self._restart(trainer, pl_module)

    def _restart(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._counts = torch.zeros(2, dtype=torch.long, device=pl_module.device)
        self._step, self._start = trainer.global_step, self._now(pl_module)

    def _now(self, pl_module: LightningModule) -> float:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        return time.perf_counter()


def _tokenizer(trainer: Trainer, pl_module: LightningModule) -> PreTrainedTokenizerBase:
    for owner in (getattr(trainer, "datamodule", None), pl_module):
        tokenizer = getattr(owner, "tokenizer", None)
        if isinstance(tokenizer, PreTrainedTokenizerBase):
            return tokenizer
    raise MisconfigurationException(
        "TextThroughputMonitor weighs tokens in bytes by the tokenizer of the data module or of "
        f"the module, but neither {type(getattr(trainer, 'datamodule', None)).__name__} nor "
        f"{type(pl_module).__name__} has a Hugging Face one: give either a property `tokenizer`."
    )
