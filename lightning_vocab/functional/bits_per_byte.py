"""Bits per byte: the one loss that can be compared before and after a vocabulary grows."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def bits_per_byte(nats: Tensor, num_bytes: Tensor | int) -> Tensor:
    """Sum of the nats in bits, divided by the bytes of text that they pay for; lower is better.

    ``sum(nats) / (ln 2 * num_bytes)``. Loss per token falls when tokens get shorter and rises when
    they get longer; this number does not know where the text was cut. Count whole documents and all
    their bytes: every byte whose token was scored, and none else.

    Args:
        nats: Negative log-likelihoods of all tokens of the text, or their sum, any shape.
        num_bytes: UTF-8 bytes of the text; a tensor is summed.

    Returns:
        A scalar in bits per byte, of the dtype of ``nats`` (float32 for an integer).

    Raises:
        ValueError: If there is no byte.
    """
    total = torch.as_tensor(num_bytes, device=nats.device).sum()
    if total <= 0:
        raise ValueError(
            f"Bits per byte needs at least one byte of text, got {int(total)}: give the number of "
            "UTF-8 bytes that the scored tokens stand for."
        )
    return nats.sum() / (math.log(2) * total)
