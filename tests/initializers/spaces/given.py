"""A space of given vectors, for tests of the methods that use one."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_vocab.initializers import RowContext
from lightning_vocab.initializers.spaces import AuxiliarySpace, TokenVectors


class GivenSpace(AuxiliarySpace):
    """Vectors of the new tokens by surface and of the base's tokens by id; others are unknown."""

    def __init__(self, new: dict[str, Tensor], old: dict[int, Tensor]) -> None:
        self.new = new
        self.old = old

    def vectors(self, context: RowContext) -> TokenVectors:
        surfaces = [token.surface for token in context.expansion.tokens]
        ids = context.base_ids.tolist()
        zeros = torch.zeros_like(next(iter([*self.new.values(), *self.old.values()])))
        return TokenVectors(
            torch.stack([self.new.get(surface, zeros) for surface in surfaces]),
            torch.tensor([surface in self.new for surface in surfaces]),
            torch.stack([self.old.get(id, zeros) for id in ids]),
            torch.tensor([id in self.old for id in ids]),
        )


def drawn_space(words: tuple[str, ...], width: int = 6, seed: int = 5) -> GivenSpace:
    """Vectors of all words and of the ids 0 to 299; 0 is a special token."""
    generator = torch.Generator().manual_seed(seed)
    new = {word: torch.randn(width, generator=generator) for word in words}
    return GivenSpace(new, {id: torch.randn(width, generator=generator) for id in range(300)})
