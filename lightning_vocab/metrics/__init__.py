"""Metrics that add up over batches and ranks."""

from lightning_vocab.metrics.bits_per_byte import BitsPerByte

__all__ = ["BitsPerByte"]
