"""Bits of each document, so that models are compared on the same documents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_vocab.data.rows import StoredRows
from lightning_vocab.functional.bits_per_byte import bits_per_byte
from lightning_vocab.loss import evaluating
from lightning_vocab.module import VocabExpansionModule


@dataclass(frozen=True, eq=False)
class DocumentScores:
    """What a model needs for each document of a source.

    Args:
        nats: Negative log-likelihood of each document, ``(num_documents,)``, float64.
        num_bytes: UTF-8 bytes of each, ``(num_documents,)``.
    """

    nats: Tensor
    num_bytes: Tensor

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of all documents together."""
        return float(bits_per_byte(self.nats, self.num_bytes))


def score_documents(module: VocabExpansionModule, loader: DataLoader[Any]) -> DocumentScores:
    """Score every document of a validation source; the windows of a long one are summed.

    Args:
        module: The module, on one process.
        loader: One of `VocabDataModule.val_dataloader`, whose rows come in their order.

    Raises:
        TypeError: If the loader is none of a `VocabDataModule`.
    """
    rows = loader.dataset
    if not isinstance(rows, StoredRows):
        raise TypeError(f"Expected stored rows of a VocabDataModule, got {type(rows).__name__}.")
    place = torch.as_tensor(rows.rows["document"][:])
    nats = _nats_of_rows(module, loader)
    num_documents = int(place.max()) + 1
    sums = torch.zeros(num_documents, dtype=torch.float64).index_add(0, place, nats)
    num_bytes = torch.as_tensor(rows.rows["num_bytes"][:])
    sizes = torch.zeros(num_documents, dtype=torch.int64).index_add(0, place, num_bytes)
    return DocumentScores(sums, sizes)


def _nats_of_rows(module: VocabExpansionModule, batches: Iterable[dict[str, Tensor]]) -> Tensor:
    found = []
    with evaluating(module):
        for batch in batches:
            moved = {key: value.to(module.device) for key, value in batch.items()}
            module.check_loss(moved)
            # Summed on the CPU: float64 does not exist on Apple's GPUs.
            found.append(module.loss.nats(moved).cpu().double().sum(dim=1))
    return torch.cat(found)
