"""Bits per byte of whole documents, one sum for each named source."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lightning.fabric.utilities import rank_zero_only
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from lightning_vocab.loss import NextTokenLoss, evaluating
from lightning_vocab.metrics import BitsPerByte
from lightning_vocab.uncompiled import uncompiled


class ScoredModule(LightningModule):
    """The validation and test steps of a causal language model.

    A batch holds whole documents or windows of them: ``input_ids``, ``attention_mask`` and
    ``labels`` ``(batch, time)``, and ``num_bytes`` ``(batch,)``. Sources are named by the data
    module's ``val_names`` and ``test_names``, by their number where it has none.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bits: dict[str, BitsPerByte] = {}
        self._loss_is_checked = False

    @override
    @uncompiled
    def log(self, *args: Any, **kwargs: Any) -> None:
        """As Lightning does it; torch.compile cannot trace the inspection that it begins with."""
        super().log(*args, **kwargs)

    @property
    def loss(self) -> NextTokenLoss:
        """The loss over the model; a subclass provides it."""
        raise RuntimeError(f"{type(self).__name__} has no loss: override the property.")

    @uncompiled
    def check_loss(self, batch: dict[str, Tensor]) -> None:
        """Compare the streamed loss with the model's own on the first batch that is seen."""
        if not self._loss_is_checked:
            self._loss_is_checked = self.loss.check(batch, self.agreed)

    def agreed(self, decision: bool) -> bool:
        """Whether to go a certain way, of which ranks that share parameters must all be told."""
        return decision

    @override
    def on_validation_epoch_start(self) -> None:
        """Start the sums of bits and bytes anew."""
        self._bits = {}

    @override
    def validation_step(
        self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Add the batch to its source's bits per byte."""
        self._score(batch, self.source_name("val", dataloader_idx))

    @override
    def on_validation_epoch_end(self) -> None:
        """Log ``val/bits_per_byte/<source>``, summed over all ranks."""
        self._log_bits("val")

    @override
    def on_test_epoch_start(self) -> None:
        """Start the sums of bits and bytes anew."""
        self._bits = {}

    @override
    def test_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add the batch to its source's bits per byte."""
        self._score(batch, self.source_name("test", dataloader_idx))

    @override
    def on_test_epoch_end(self) -> None:
        """Log ``test/bits_per_byte/<source>``, summed over all ranks."""
        self._log_bits("test")

    def bits_per_byte(self, batches: Iterable[dict[str, Tensor]]) -> BitsPerByte:
        """Score batches of whole documents; for use outside a Trainer's loop.

        Args:
            batches: Batches as the validation step gets them, with ``num_bytes (batch,)``.

        Returns:
            The metric; its ``compute`` sums over all ranks.
        """
        metric = BitsPerByte().to(self.device)
        with evaluating(self):
            for batch in batches:
                moved = {key: value.to(self.device) for key, value in batch.items()}
                self.check_loss(moved)
                metric.update(self.loss.nats(moved), moved["num_bytes"])
        return metric

    def _score(self, batch: dict[str, Tensor], source: str) -> None:
        if "num_bytes" not in batch:
            raise ValueError(
                "A validation batch needs num_bytes (batch,): the UTF-8 bytes of each row's text, "
                f"without which there are no bits per byte; got {sorted(batch)}."
            )
        self.check_loss(batch)
        self._add_bits(source, self.loss.nats(batch), batch["num_bytes"])

    @uncompiled
    def _add_bits(self, source: str, nats: Tensor, num_bytes: Tensor) -> None:
        if source not in self._bits:
            self._bits[source] = BitsPerByte().to(self.device)
        self._bits[source].update(nats, num_bytes)

    def source_name(self, stage: str, index: int) -> str:
        """Name of a validation or test source.

        Args:
            stage: ``val`` or ``test``.
            index: Number of its loader.
        """
        datamodule = getattr(self.trainer, "datamodule", None)
        names = getattr(datamodule, f"{stage}_names", None)
        return names[index] if names else str(index)

    def _log_bits(self, stage: str) -> None:
        for source, metric in self._bits.items():
            # compute() has summed over ranks, so their values are equal and the mean changes none.
            value = metric.compute()
            self.log(f"{stage}/bits_per_byte/{source}", value, prog_bar=True, sync_dist=True)


@rank_zero_only
def log_fertility(trainer: Trainer) -> None:
    """Send ``data/tokens_per_byte_<source>`` and its like to every logger, before and after growth.

    Does nothing where the data module measures no fertility.

    Args:
        trainer: A Trainer that fits.
    """
    fertility = getattr(getattr(trainer, "datamodule", None), "fertility", None)
    if fertility is None or not trainer.loggers:
        return
    values: dict[str, float] = {}
    for source, numbers in fertility().items():
        for when in ("before", "after"):
            for name, value in numbers[when].items():
                if name != "num_tokens" and value is not None:
                    values[f"data/{name}_{when}/{source}"] = value
    for logger in trainer.loggers:
        logger.log_metrics(values, step=trainer.global_step)
