"""Old rows and new rows as two Parameters behind one embedding and one head.

A frozen old Parameter has no gradient and no optimizer state, so neither weight decay nor momentum
can move it; a gradient mask on one big matrix cannot promise that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from typing_extensions import override

from lightning_vocab.rows.split_rows import SplitRows

__all__ = ["SplitEmbedding", "SplitHead", "SplitRows", "base_view"]


class SplitEmbedding(nn.Module):
    """Input embedding over `SplitRows`, with the base's scale where it has one (Gemma, Bart).

    Args:
        rows: The rows; the head's own object where the model is tied.
        scale: Factor of the embedding's output: a number, or the base's scalar buffer.
        padding_idx: Id whose row gets no gradient from the embedding, as the base has it.

    Example:
        >>> import torch
        >>> old, new = nn.Parameter(torch.eye(2)), torch.ones(1, 2)
        >>> rows = SplitRows(old, new, torch.tensor([2]), torch.empty(0, 2))
        >>> SplitEmbedding(rows, scale=3.0)(torch.tensor([1, 2])).tolist()
        [[0.0, 3.0], [3.0, 3.0]]
    """

    scale_buffer: Tensor | None

    def __init__(
        self, rows: SplitRows, scale: Tensor | float | None = None, padding_idx: int | None = None
    ) -> None:
        super().__init__()
        self.rows = rows
        self.padding_idx = padding_idx
        buffer = scale if isinstance(scale, Tensor) else None
        self.register_buffer("scale_buffer", buffer, persistent=False)
        self.scale_number = None if isinstance(scale, Tensor) else scale

    @property
    def num_embeddings(self) -> int:
        """Height of the matrix, as `torch.nn.Embedding` names it."""
        return self.rows.num_rows

    @property
    def embedding_dim(self) -> int:
        """Width of the matrix, as `torch.nn.Embedding` names it."""
        return self.rows.old.shape[1]

    @override
    def forward(self, input: Tensor) -> Tensor:
        """Embed token ids ``(batch, time)``: ``(batch, time, dim)``."""
        embedded = self.rows.lookup(input, self.padding_idx)
        if self.scale_buffer is not None:
            return embedded * self.scale_buffer.to(embedded.dtype)
        return embedded if self.scale_number is None else embedded * self.scale_number


class SplitHead(nn.Module):
    """Output projection over `SplitRows`.

    Args:
        rows: The rows; the embedding's own object where the model is tied.

    Example:
        >>> import torch
        >>> old, new = nn.Parameter(torch.eye(2)), torch.ones(1, 2)
        >>> head = SplitHead(SplitRows(old, new, torch.tensor([2]), torch.empty(0, 2)))
        >>> head(torch.tensor([4.0, 5.0])).tolist()
        [4.0, 5.0, 9.0]
        >>> with base_view(head):
        ...     head(torch.tensor([4.0, 5.0])).tolist()
        [4.0, 5.0]
    """

    def __init__(self, rows: SplitRows) -> None:
        super().__init__()
        self.rows = rows

    @property
    def in_features(self) -> int:
        """Width of the matrix, as `torch.nn.Linear` names it."""
        return self.rows.old.shape[1]

    @property
    def out_features(self) -> int:
        """Number of logits, as `torch.nn.Linear` names it."""
        return self.rows.num_rows

    @override
    def forward(self, input: Tensor) -> Tensor:
        """Logits ``(..., num_rows)`` of hidden states ``(..., dim)``, in order of token id."""
        return self.rows.logits(input)


@contextmanager
def base_view(module: nn.Module) -> Iterator[None]:
    """Show the model as it was before expansion: only old rows are looked up and scored.

    Token ids must be the base tokenizer's. Nothing is copied; the former view returns at the end.
    Ask the model for logits: its own loss (``labels=``) reads the height from the config, which
    stays the grown one, and raises.

    Args:
        module: The expanded model, or a module that holds it.

    Raises:
        ValueError: If the module holds no split rows: there would be nothing to show.
    """
    splits = [part for part in module.modules() if isinstance(part, SplitRows)]
    if not splits:
        raise ValueError(
            f"Expected an expanded model, found no split rows in {type(module).__name__}: a model "
            "that was not expanded is its own base."
        )
    before = [part.shows_base for part in splits]
    for part in splits:
        part.shows_base = True
    try:
        yield
    finally:
        for part, shown in zip(splits, before, strict=True):
            part.shows_base = shown
