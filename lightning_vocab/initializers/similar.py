"""Rows made of the base rows whose tokens are alike, in a space that knows likeness."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from lightning_vocab.initializers.base import Initializer, RowContext
from lightning_vocab.initializers.combined import CombinedRows, RowWeights
from lightning_vocab.initializers.spaces.base import AuxiliarySpace
from lightning_vocab.initializers.spaces.tokens import REPLACEMENT, is_ordinary, surfaces_of


class Likeness(NamedTuple):
    """New tokens that a space knows and base tokens that it knows, with their vectors.

    Args:
        new: Places of the new tokens, ``(num_queries,)``.
        queries: Their vectors, ``(num_queries, width)``, none of them zero.
        ids: Ids of the base tokens, ``(num_keys,)``, ascending.
        keys: Their vectors, ``(num_keys, width)``, none of them zero.
    """

    new: Tensor
    queries: Tensor
    ids: Tensor
    keys: Tensor


class GivenWeights(NamedTuple):
    """Weights of some new tokens, flattened; those of one token stand in one run.

    Args:
        owners: Place of the new token that each weight belongs to, ``(num_weights,)``.
        ids: Ids of base rows, ``(num_weights,)``.
        weights: Their weights, ``(num_weights,)``.
    """

    owners: Tensor
    ids: Tensor
    weights: Tensor


class SimilarRows(CombinedRows):
    """Base of methods that mix the rows of base tokens by their likeness to the new token.

    Special tokens of the base never take part. A new token goes to the fallback if the space does
    not know it, or knows no base token.

    Args:
        space: Gives tokens vectors.
        fallback: Makes the rows of the tokens left. None makes such a token an error.
        copy_equal: Whether a new token with the very text of a base token copies its row (the
            lowest id if there are several); it needs no vector.
    """

    def __init__(
        self, space: AuxiliarySpace, fallback: Initializer | None, *, copy_equal: bool = False
    ) -> None:
        super().__init__(fallback)
        self.space = space
        self.copy_equal = copy_equal
        self.known: str | None = None
        """What the space knew at the last call, in words."""

    @abstractmethod
    def mixed(self, context: RowContext, likeness: Likeness) -> list[GivenWeights]:
        """Weights of all new tokens of ``likeness``, in one or several parts.

        Args:
            context: The base's rows, the new tokens and their pieces.
            likeness: At least one new token and one base token; the vectors are on the device of
                the input rows, everything else is on the CPU.
        """

    @override
    def remarks(self) -> list[str]:
        """What the space knew at the last call, and the coverage."""
        return [*([] if self.known is None else [self.known]), *super().remarks()]

    @override
    def weights(self, context: RowContext) -> RowWeights:
        """The base rows of each new row and their weights, on the CPU."""
        vectors = self.space.vectors(context)
        self.known = vectors.coverage(type(self.space).__name__, context)
        parts = []
        is_left = vectors.knows_new.clone()
        if self.copy_equal:
            copied = _copies(context)
            parts.append(copied)
            is_left[copied.owners] = False
        new = is_left.nonzero().flatten()
        known = (vectors.knows_old & is_ordinary(context)).nonzero().flatten()
        if len(new) and len(known):
            device = context.input_rows.device
            queries, keys = vectors.new[new].to(device), vectors.old[known].to(device)
            ids = context.base_ids.cpu()[known]
            parts += self.mixed(context, Likeness(new, queries, ids, keys))
        return _joined(context.num_new, parts)


def _copies(context: RowContext) -> GivenWeights:
    """One weight of 1 for each new token whose text a base token has."""
    new, old = surfaces_of(context)
    ids = context.base_ids.tolist()
    lowest = dict(zip(reversed(old), reversed(ids), strict=True))
    found = torch.tensor(
        [-1 if REPLACEMENT in text or not text else lowest.get(text, -1) for text in new]
    )
    owners = (found >= 0).nonzero().flatten()
    return GivenWeights(owners, found[owners], torch.ones(len(owners)))


def _joined(num_new: int, parts: list[GivenWeights]) -> RowWeights:
    """Parts in the order of the new tokens."""
    if not parts:
        none = torch.zeros(0, dtype=torch.long)
        return RowWeights(torch.zeros(num_new, dtype=torch.bool), none, none.float(), none)
    owners, ids, weights = (torch.cat(part) for part in zip(*parts, strict=True))
    order = owners.argsort(stable=True)
    counts = owners.bincount(minlength=num_new)
    return RowWeights(counts > 0, ids[order], weights[order], counts[counts > 0])
