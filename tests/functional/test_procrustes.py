from __future__ import annotations

import pytest
import torch

from lightning_vocab.functional.procrustes import procrustes_rotation


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_known_rotation_is_found_again() -> None:
    rotation = torch.linalg.qr(drawn(5, 5)).Q
    source = drawn(40, 5, seed=1)
    torch.testing.assert_close(procrustes_rotation(source, source @ rotation), rotation)


def test_no_other_rotation_fits_noisy_pairs_better() -> None:
    source, target = drawn(30, 4, seed=2), drawn(30, 4, seed=3)
    best = procrustes_rotation(source, target)
    torch.testing.assert_close(best.T @ best, torch.eye(4, dtype=torch.float64))
    error = (source @ best - target).norm()
    for seed in range(50):
        other = torch.linalg.qr(drawn(4, 4, seed=seed)).Q
        assert (source @ other - target).norm() >= error


def test_the_narrower_space_is_turned_into_a_part_of_the_wider() -> None:
    embed = torch.linalg.qr(drawn(6, 3)).Q.T
    source = drawn(20, 3, seed=4)
    torch.testing.assert_close(procrustes_rotation(source, source @ embed), embed)


def test_bad_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one pair"):
        procrustes_rotation(torch.ones(0, 2), torch.ones(0, 2))
    with pytest.raises(ValueError, match="at least one pair"):
        procrustes_rotation(torch.ones(3, 2), torch.ones(2, 2))
    with pytest.raises(ValueError, match="finite"):
        procrustes_rotation(torch.full((1, 2), torch.nan), torch.ones(1, 2))
