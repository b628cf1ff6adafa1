"""Teach new rows what their tokens mean, from pairs of tokens and descriptions."""

from lightning_vocab.grounding.datamodule import GroundingDataModule
from lightning_vocab.grounding.diagnostics import measure_grounding
from lightning_vocab.grounding.pairs import Pair, read_pairs
from lightning_vocab.grounding.retrieval import retrieve
from lightning_vocab.grounding.rows import GroundingRows, grounding_rows
from lightning_vocab.grounding.templates import Templates

__all__ = [
    "GroundingDataModule",
    "GroundingRows",
    "Pair",
    "Templates",
    "grounding_rows",
    "measure_grounding",
    "read_pairs",
    "retrieve",
]
