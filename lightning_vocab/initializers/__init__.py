"""Rows for new tokens: one method a file."""

from lightning_vocab.initializers.base import Initializer, PieceBags, RowContext
from lightning_vocab.initializers.mean import Mean
from lightning_vocab.initializers.normal import Normal
from lightning_vocab.initializers.subword_mean import SubwordMean

__all__ = ["Initializer", "Mean", "Normal", "PieceBags", "RowContext", "SubwordMean"]
