from __future__ import annotations

import math

import pytest
import torch

from lightning_vocab.functional import bits_per_byte


def test_a_uniform_model_over_bytes_needs_eight_bits() -> None:
    nats = torch.full((2, 5), math.log(256), dtype=torch.float64)
    assert bits_per_byte(nats, 10).item() == pytest.approx(8.0)


def test_one_token_of_four_bytes_pays_for_all_of_them() -> None:
    assert bits_per_byte(torch.tensor(4 * math.log(2)), torch.tensor([3, 1])).item() == (
        pytest.approx(1.0)
    )


def test_no_byte_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        bits_per_byte(torch.tensor(1.0), 0)
