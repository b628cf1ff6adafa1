from __future__ import annotations

import torch

from lightning_vocab.initializers import Mean
from lightning_vocab.initializers.multivariate import Multivariate
from tests.initializers.contexts import make_context


def test_rows_are_drawn_from_the_normal_distribution_of_the_base() -> None:
    rows = torch.randn(300, 4) @ torch.randn(4, 4) + torch.arange(4.0)
    words = [f"zq{place}" for place in range(4000)]
    made = Multivariate().rows(make_context(rows, words=words))[0]
    expected = torch.cov(rows.T, correction=0)
    assert torch.allclose(made.mean(0), rows.mean(0), atol=0.15)
    assert torch.allclose(torch.cov(made.T), expected, atol=0.1 * expected.max().item())


def test_it_is_the_mean_with_its_whole_noise() -> None:
    rows = torch.randn(300, 4)
    drawn = Multivariate().rows(make_context(rows))[0]
    assert torch.equal(drawn, Mean(noise=1).rows(make_context(rows))[0])
