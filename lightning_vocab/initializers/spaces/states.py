"""Runs the backbone of a model over ids and hands its hidden states back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from lightning_vocab.initializers.base import RowContext
from lightning_vocab.initializers.spaces.tokens import Ids


class States:
    """Runs the backbone over rows of ids of one length, behind the start token.

    Args:
        model: The base model.
        context: Holds the tokenizer, whose bos, else eos, is the start token.
        layer: Index of the hidden states; None is the middle layer.
        batch_tokens: Tokens in one forward pass, start tokens included.

    Raises:
        ValueError: If the model has no such layer.
    """

    def __init__(
        self, model: PreTrainedModel, context: RowContext, layer: int | None, batch_tokens: int
    ) -> None:
        depth = int(model.config.get_text_config().num_hidden_layers)
        self.layer = depth // 2 if layer is None else layer
        if not -depth - 1 <= self.layer <= depth:
            raise ValueError(
                f"The base has hidden states {-depth - 1} to {depth}: there is no layer {layer}."
            )
        self._backbone = model.base_model
        self._device = context.input_rows.device
        self._batch_tokens = batch_tokens
        self._width = int(model.config.get_text_config().hidden_size)
        starts = (context.tokenizer.bos_token_id, context.tokenizer.eos_token_id)
        new = context.expansion.new_ids
        usable = [id for id in starts if id is not None and id not in new]
        self._start = [id for id in usable if id < len(context.input_rows)][:1]

    def empty(self, num_tokens: int) -> Tensor:
        """Zeros ``(num_tokens, width)`` on the CPU."""
        return torch.zeros(num_tokens, self._width)

    def of(self, ids: Tensor) -> Iterator[tuple[int, Tensor]]:
        """States ``(some, length, width)`` of some rows of ``ids``, with the first row's number."""
        start = torch.tensor(self._start, dtype=torch.long).expand(len(ids), -1)
        whole = torch.cat([start, ids], dim=1)
        size = max(1, self._batch_tokens // whole.shape[1])
        for first in range(0, len(ids), size):
            made = self._backbone(
                input_ids=whole[first : first + size].to(self._device),
                use_cache=False,
                output_hidden_states=True,
            )
            states = made.hidden_states[self.layer][:, len(self._start) :]
            yield first, states.float().cpu()


def windows(ids: Ids, lengths: Ids, owners: Ids, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Documents in rows of at most ``size`` ids, rows of one length together.

    Args:
        ids: Ids of all documents, ``(num_ids,)``.
        lengths: Number of ids of each document.
        owners: Something of each id, ``(num_ids,)``.
        size: The longest row.

    Returns:
        Ids and owners, both ``(rows, length)``, for one length after the other.
    """
    num_rows = -(-lengths // size)
    starts = np.repeat(np.cumsum(lengths) - lengths, num_rows)
    nth = np.arange(len(starts)) - np.repeat(np.cumsum(num_rows) - num_rows, num_rows)
    row_lengths = np.minimum(size, np.repeat(lengths, num_rows) - nth * size)
    for length in np.unique(row_lengths):
        firsts = (starts + nth * size)[row_lengths == length]
        at = firsts[:, None] + np.arange(length)
        yield torch.from_numpy(ids[at]), torch.from_numpy(owners[at])


def weights_hash(model: PreTrainedModel) -> str:
    """SHA-256 (hex) of all weights with their names."""
    digest = hashlib.sha256()
    for name, weight in model.state_dict().items():
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        bits = weight.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(memoryview(bits.numpy()))
    return digest.hexdigest()


@contextmanager
def quiet(model: PreTrainedModel) -> Iterator[None]:
    """No dropout for a while; afterwards every module has the mode that it had before."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
