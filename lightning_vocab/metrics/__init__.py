"""Metrics that add up over batches and ranks."""

from lightning_vocab.metrics.bits_per_byte import BitsPerByte
from lightning_vocab.metrics.fertility import Fertility

__all__ = ["BitsPerByte", "Fertility"]
