"""From text to batches: sources, documents, rows of tokens, loaders and their cache on disk."""

from lightning_vocab.data.documents import Documents, read_documents
from lightning_vocab.data.loader import (
    ResumableLoader,
    ResumableSampler,
    evaluation_loader,
    training_loader,
)
from lightning_vocab.data.rows import Collate, PackedRows, StoredRows
from lightning_vocab.data.sources import SourceLike, TextSource

__all__ = [
    "Collate",
    "Documents",
    "PackedRows",
    "ResumableLoader",
    "ResumableSampler",
    "SourceLike",
    "StoredRows",
    "TextSource",
    "evaluation_loader",
    "read_documents",
    "training_loader",
]
