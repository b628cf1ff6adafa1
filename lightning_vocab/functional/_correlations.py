"""Correlations of residuals with all atoms, for matching pursuit, in two forms."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_vocab.functional.neighbours import largest

_GRAM_MAC = 20
"""Cost of a product that reads its row of the Gram matrix from memory, in products of a GEMM
(measured on one core: 10 with 1,000 atoms, 17 with 4,000, 22 with 15,000)."""

_GRAM_BLOCK = 1024
_MAX_BATCH = 1024
_MIN_GRAM_BATCH = 64


class Correlations(ABC):
    """What a pursuit needs to know of the products between atoms, and with what is left.

    The calls for a batch of targets: `start`, and then for each step `best`, `add` and `update`.

    Args:
        atoms: The atoms, ``(atoms, dim)``.
        scale: Factor of each atom's correlations when the largest is looked for, ``(atoms,)``.
        dtype: Type to compute in.
        memory_limit: Bytes that may be taken.
    """

    def __init__(self, atoms: Tensor, scale: Tensor, dtype: torch.dtype, memory_limit: int) -> None:
        self.atoms = atoms
        self.scale = scale
        self.dtype = dtype
        self._block = _block_size(atoms.shape[1], memory_limit, dtype.itemsize)

    @abstractmethod
    def start(self, targets: Tensor, k: int) -> None:
        """Begin with targets ``(batch, dim)`` of which nothing is explained by at most k atoms."""

    @abstractmethod
    def best(self) -> tuple[Tensor, Tensor]:
        """Largest scaled correlation of each residual and its atom, both ``(batch,)``."""

    @abstractmethod
    def add(self, ids: Tensor, rows: Tensor) -> Tensor:
        """Products of a new atom with each of a target's atoms and with itself.

        Args:
            ids: Atoms of each target, the new one last, ``(batch, s)``.
            rows: The new atoms themselves, ``(batch, dim)``.

        Returns:
            ``(batch, s)``; the last column is the squared norm of the new atom.
        """

    @abstractmethod
    def update(self, ids: Tensor, coefficients: Tensor) -> None:
        """Take note of new codes.

        Args:
            ids: Atoms of each target, those of `add`, ``(batch, s)``.
            coefficients: Their weights, ``(batch, s)``.
        """

    def _with_all(self, rows: Tensor, out: Tensor) -> None:
        """Scaled products of ``rows`` ``(some, dim)`` with all atoms into ``(some, atoms)``."""
        for start in range(0, len(self.atoms), self._block):
            block = slice(start, start + self._block)
            torch.mm(rows, self.atoms[block].to(self.dtype).T, out=out[:, block])
        out *= self.scale


class ResidualCorrelations(Correlations):
    """Correlations by multiplying residuals with all atoms, a block of atoms at a time."""

    def start(self, targets: Tensor, k: int) -> None:
        """Begin with targets ``(batch, dim)`` of which nothing is explained by at most k atoms."""
        self._targets, self._residuals = targets, targets.clone()
        self._chosen = targets.new_empty(len(targets), k, targets.shape[1])

    def best(self) -> tuple[Tensor, Tensor]:
        """Largest scaled correlation of each residual and its atom, both ``(batch,)``."""
        values = self._residuals.new_full((len(self._residuals),), -1)
        ids = torch.zeros(len(values), dtype=torch.long, device=values.device)
        for start in range(0, len(self.atoms), self._block):
            block = slice(start, start + self._block)
            found = self._residuals @ self.atoms[block].to(self.dtype).T
            found *= self.scale[block]
            best, places = _largest(found.abs_())
            is_better = best > values
            values = torch.where(is_better, best, values)
            ids = torch.where(is_better, places + start, ids)
        return values, ids

    def add(self, ids: Tensor, rows: Tensor) -> Tensor:
        """Products of the new atoms ``rows`` with those of each target, ``(batch, s)``."""
        size = ids.shape[1]
        self._chosen[:, size - 1] = rows
        return (self._chosen[:, :size] @ rows.unsqueeze(2)).squeeze(2)

    def update(self, ids: Tensor, coefficients: Tensor) -> None:
        """Residuals of the new codes."""
        chosen = self._chosen[:, : ids.shape[1]]
        explained = coefficients.to(self.dtype).unsqueeze(1) @ chosen
        self._residuals = self._targets - explained.squeeze(1)


class GramCorrelations(Correlations):
    """Correlations from those of the targets and the products of all atoms with each other."""

    def __init__(self, atoms: Tensor, scale: Tensor, dtype: torch.dtype, memory_limit: int) -> None:
        super().__init__(atoms, scale, dtype, memory_limit)
        self._unscale = torch.where(scale > 0, scale.reciprocal(), 0)
        self._gram = torch.empty(len(atoms), len(atoms), dtype=dtype, device=atoms.device)
        for start in range(0, len(atoms), _GRAM_BLOCK):
            stop = start + _GRAM_BLOCK
            rows = atoms[start:stop].to(dtype)
            for first in range(0, stop, _GRAM_BLOCK):
                block = slice(first, first + _GRAM_BLOCK)
                products = rows @ atoms[block].to(dtype).T
                torch.mul(products, scale[block], out=self._gram[start:stop, block])
                torch.mul(products.T, scale[start:stop], out=self._gram[block, start:stop])

    def start(self, targets: Tensor, k: int) -> None:
        """Begin with targets ``(batch, dim)`` of which nothing is explained by at most k atoms."""
        self._starts = targets.new_empty(len(targets), len(self.atoms))
        self._with_all(targets, self._starts)
        self._codes: tuple[Tensor, Tensor] | None = None

    def best(self) -> tuple[Tensor, Tensor]:
        """Largest scaled correlation of each residual and its atom, both ``(batch,)``."""
        if self._codes is None:
            found = self._starts.abs()
        else:
            ids, coefficients = self._codes
            # A bag sums rows of the Gram matrix where they lie, without a copy of them.
            found = F.embedding_bag(ids, self._gram, mode="sum", per_sample_weights=coefficients)
            found = found.sub_(self._starts).abs_()
        return _largest(found)

    def add(self, ids: Tensor, rows: Tensor) -> Tensor:
        """Products of the new atoms with those of each target, ``(batch, s)``."""
        return self._gram[ids[:, -1:], ids] * self._unscale[ids]

    def update(self, ids: Tensor, coefficients: Tensor) -> None:
        """Keep the codes of the batch."""
        self._codes = ids, coefficients.to(self.dtype)


def _largest(values: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of each row and its column, both ``(rows,)``."""
    best, columns = largest(values, 1)
    return best.squeeze(1), columns.squeeze(1)


def _block_size(dim: int, memory_limit: int, itemsize: int) -> int:
    """Atoms whose copy in the type to compute in takes an eighth of the memory."""
    return max(256, memory_limit // 8 // (itemsize * dim))


def batch_size(
    num_atoms: int, dim: int, k: int, memory_limit: int, itemsize: int, *, gram: bool
) -> int:
    """Targets of a batch whose state fits into the memory; 0 where there is not enough for one.

    A quarter of the memory is left for the block of atoms and for what an allocator needs.
    """
    state = 3 * 8 * k * (k + 4) + 6 * itemsize * dim
    if gram:
        left = memory_limit * 7 // 8 - itemsize * num_atoms**2
        return max(0, min(_MAX_BATCH, left // (state + 3 * itemsize * num_atoms)))
    block = min(num_atoms, _block_size(dim, memory_limit, itemsize))
    state += itemsize * (k * dim + 2 * block)
    return min(_MAX_BATCH, memory_limit * 3 // 4 // state)


def is_gram_faster(
    num_targets: int, num_atoms: int, dim: int, k: int, memory_limit: int, itemsize: int
) -> bool:
    """Whether the Gram form fits into the memory and has less to do."""
    batch = batch_size(num_atoms, dim, k, memory_limit, itemsize, gram=True)
    if batch < min(num_targets, _MIN_GRAM_BATCH):
        return False
    gram = num_targets * k * (k + 1) / 2 * _GRAM_MAC + (num_atoms + num_targets) * dim
    return gram < num_targets * k * dim
