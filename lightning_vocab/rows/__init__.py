"""Surgery on the rows of a model: split, expand, export."""

from lightning_vocab.initializers.stored_rows import StoredRows, read_rows
from lightning_vocab.rows.expand import expand_model
from lightning_vocab.rows.export import export_model
from lightning_vocab.rows.locate import find_causal_lm, find_split
from lightning_vocab.rows.split import SplitEmbedding, SplitHead, SplitRows, base_view
from lightning_vocab.rows.ties import is_tied, parameters_once

__all__ = [
    "SplitEmbedding",
    "SplitHead",
    "SplitRows",
    "StoredRows",
    "base_view",
    "expand_model",
    "export_model",
    "find_causal_lm",
    "find_split",
    "is_tied",
    "parameters_once",
    "read_rows",
]
