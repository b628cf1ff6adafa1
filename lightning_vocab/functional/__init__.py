"""The mathematics: pure torch, no Lightning, no transformers."""

from lightning_vocab.functional.bits_per_byte import bits_per_byte
from lightning_vocab.functional.linear_cross_entropy import (
    RowBlock,
    linear_cross_entropy,
    token_nats,
)
from lightning_vocab.functional.neighbours import NearestRows, nearest_cosine
from lightning_vocab.functional.spectrum import (
    RowNorms,
    effective_rank,
    mean_pairwise_cosine,
    participation_ratio,
    row_norms,
    singular_values,
    stable_rank,
    top1_share,
)

__all__ = [
    "NearestRows",
    "RowBlock",
    "RowNorms",
    "bits_per_byte",
    "effective_rank",
    "linear_cross_entropy",
    "mean_pairwise_cosine",
    "nearest_cosine",
    "participation_ratio",
    "row_norms",
    "singular_values",
    "stable_rank",
    "token_nats",
    "top1_share",
]
