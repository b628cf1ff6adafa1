"""Prompts to continue, padded on the left so that each ends where the model goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from lightning_vocab.data.tokenise import frame_of
from lightning_vocab.vocabulary.measuring.fertility import encode_batch


def tokenise_prompts(tokenizer: PreTrainedTokenizerBase, prompts: list[str]) -> list[list[int]]:
    """The start token and the ids of each prompt."""
    start = frame_of(tokenizer).start
    return [[start, *ids] for ids in encode_batch(tokenizer, prompts)]


def prompt_loader(
    tokenizer: PreTrainedTokenizerBase, prompts: list[str], batch_size: int
) -> DataLoader[Any]:
    """A loader of the prompts in their order.

    Args:
        tokenizer: The tokenizer to cut with.
        prompts: The prompts.
        batch_size: Prompts of a batch.
    """
    return DataLoader(
        tokenise_prompts(tokenizer, prompts),  # type: ignore[arg-type]  # a list will do
        batch_size=batch_size,
        collate_fn=CollatePrompts(frame_of(tokenizer).pad),
    )


class CollatePrompts:
    """Prompts to a batch of tensors, padded on the left.

    Args:
        pad_id: Id that fills short prompts.

    Example:
        >>> CollatePrompts(pad_id=0)([[5, 6], [7]])["input_ids"].tolist()
        [[5, 6], [0, 7]]
    """

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, prompts: Sequence[list[int]]) -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask``, each ``(batch, time)`` and int64.

        Args:
            prompts: Ids of each prompt.
        """
        length = max(map(len, prompts))
        fill = [length - len(ids) for ids in prompts]
        padded = [[self.pad_id] * n + ids for n, ids in zip(fill, prompts, strict=True)]
        mask = [[0] * n + [1] * len(ids) for n, ids in zip(fill, prompts, strict=True)]
        return {"input_ids": torch.tensor(padded), "attention_mask": torch.tensor(mask)}
