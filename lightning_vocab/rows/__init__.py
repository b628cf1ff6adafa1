"""Surgery on the rows of a model: split, expand, export."""

from lightning_vocab.rows.split import SplitEmbedding, SplitHead, SplitRows, base_view

__all__ = ["SplitEmbedding", "SplitHead", "SplitRows", "base_view"]
