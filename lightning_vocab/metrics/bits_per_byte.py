"""Bits per byte as a metric that adds up over batches and ranks."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from typing_extensions import override

from lightning_vocab.functional.bits_per_byte import bits_per_byte


class BitsPerByte(Metric):
    """Bits that a model needs for each byte of text; lower is better.

    Sums of nats and of bytes are kept and reduced across ranks, never means: the value does not
    depend on how the text is cut into tokens, batches or ranks. Score whole documents, their first
    token included (a start token in front of it), and count all their bytes.

    Args:
        kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ValueError: On ``compute``, if no byte was scored; a rank alone may have none.

    Example:
        >>> import math, torch
        >>> metric = BitsPerByte()
        >>> metric.update(torch.full((3,), math.log(256)), num_bytes=3)
        >>> metric.update(torch.tensor(math.log(256)), num_bytes=1)
        >>> metric.compute()
        tensor(8.)
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    sum_nats: Tensor
    lost_nats: Tensor
    num_bytes: Tensor

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.add_state("sum_nats", torch.tensor(0.0), dist_reduce_fx="sum")
        # What rounding took from sum_nats: float32 alone loses digits over millions of tokens, and
        # float64 does not exist on Apple's GPUs.
        self.add_state("lost_nats", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("num_bytes", torch.tensor(0), dist_reduce_fx="sum")

    @override
    def update(self, nats: Tensor, num_bytes: Tensor | int) -> None:
        """Add some scored text.

        Args:
            nats: Negative log-likelihood of each of its tokens, or their sum, any shape.
            num_bytes: UTF-8 bytes that those tokens stand for; a tensor is summed.
        """
        added = nats.detach().to(self.sum_nats.dtype).sum()
        total = self.sum_nats + added
        # Exact error of a float addition: Knuth, The Art of Computer Programming 2, 4.2.2, thm. B.
        part = total - self.sum_nats
        self.lost_nats = self.lost_nats + (self.sum_nats - (total - part)) + (added - part)
        self.sum_nats = total
        self.num_bytes = self.num_bytes + torch.as_tensor(num_bytes).sum().to(self.num_bytes)

    @override
    def compute(self) -> Tensor:
        """Bits per byte of everything added so far, on all ranks."""
        return bits_per_byte(self.sum_nats + self.lost_nats, self.num_bytes)
