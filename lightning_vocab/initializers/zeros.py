"""Rows of zeros."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from lightning_vocab.initializers.base import Initializer, RowContext


class Zeros(Initializer):
    """Rows of zeros: a baseline for the input; harmful in a head.

    A head row of zeros has the logit 0 (or its bias) whatever the hidden state. Where the base's
    logits are mostly negative, as in most trained models, each such token takes more probability
    than all old ones together (Hewitt, "Initializing New Word Embeddings for Pretrained Language
    Models", 2021). A tied model uses the rows as its head.

    Args:
        in_head: Whether rows that serve as a head may be zero, too.
    """

    def __init__(self, in_head: bool = False) -> None:
        self.in_head = in_head

    @override
    def rows(self, context: RowContext) -> tuple[Tensor, Tensor | None]:
        """Input rows and, if untied, output rows ``(num_new, dim)``, all zero.

        Raises:
            ValueError: Unless ``in_head``: the rows serve as a head in every causal model.
        """
        if not self.in_head:
            raise ValueError(
                "Zeros would make head rows of zeros: their logit is 0 whatever the text, which "
                "beats the negative logits of trained tokens. Use Separate(inputs=Zeros("
                "in_head=True), outputs=...) for zero input rows of an untied model, or say "
                "in_head=True to have them nevertheless."
            )
        dtype = torch.promote_types(context.input_rows.dtype, torch.float32)
        shape = (context.num_new, context.input_rows.shape[1])
        zeros = torch.zeros(shape, dtype=dtype, device=context.input_rows.device)
        return zeros, None if context.output_rows is None else zeros.to(context.output_rows.device)
