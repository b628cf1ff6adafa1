"""Orthogonal matching pursuit: each target as a weighted sum of a few atoms."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from lightning_vocab.functional._correlations import (
    Correlations,
    GramCorrelations,
    ResidualCorrelations,
    batch_size,
    is_gram_faster,
)

Form = Literal["auto", "residual", "gram"]

_DEPENDENT = 1e-6
"""Squared sine of the angle to the support below which float32 cannot tell an atom from it."""


class SparseCodes(NamedTuple):
    """Targets as weighted sums of atoms, ``targets ≈ sum(coefficients * atoms[ids])``.

    Args:
        ids: Atoms of each target in the order they were chosen, ``(targets, k)``; 0 where none is.
        coefficients: Their weights, ``(targets, k)``; 0 where no atom is.
        counts: Number of atoms of each target, ``(targets,)``.
    """

    ids: Tensor
    coefficients: Tensor
    counts: Tensor


@torch.no_grad()
def orthogonal_matching_pursuit(
    targets: Tensor,
    atoms: Tensor,
    k: int,
    *,
    normalise: bool = True,
    tolerance: float = 1e-5,
    memory_limit: int = 1 << 30,
    form: Form = "auto",
) -> SparseCodes:
    """Greedy sparse codes: the atom nearest to what is left, then least squares on all chosen ones.

    With the residual ``r = x`` at the start, ``k`` times: ``j = argmax |<r, a_j>| / |a_j|``, then
    ``c = argmin |x - sum(c_s a_s)|`` over the chosen atoms, and ``r`` what that leaves (Pati,
    Rezaiifar & Krishnaprasad, "Orthogonal Matching Pursuit", 1993). A target is done early where no
    atom has a cosine of more than ``tolerance`` times ``|x| / |r|`` to its residual, so that
    adding one would change nothing: a target that is an atom takes that atom alone.

    Least squares goes by the inverse Cholesky factor of the chosen atoms' products, one row longer
    with each atom, in float64. Correlations with all atoms are had in one of two forms. *Residual*:
    ``<r, a>`` afresh, ``targets * atoms * dim`` products a step. *Gram*: ``<x, a> - sum(c_s * <a_s,
    a>)``, ``targets * atoms * s`` products at step ``s``, from the products of all atoms with each
    other (Rubinstein, Zibulevsky & Elad, "Efficient Implementation of the K-SVD Algorithm using
    Batch Orthogonal Matching Pursuit", 2008). Those of the Gram form go at the speed of memory, so
    it is the faster one for wide atoms alone; it is taken where it is and its matrix ``(atoms,
    atoms)`` fits into the memory: 15,000 atoms in 1 GiB.

    Memory: ``memory_limit`` beside the arguments and the result.

    Args:
        targets: Vectors to write as sums, ``(targets, dim)``, on a device that has float64. A row
            of zeros takes no atom.
        atoms: Vectors to choose from, ``(atoms, dim)``. A row of zeros is never chosen.
        k: Atoms of a target at most.
        normalise: Whether an atom is chosen by its cosine to the residual. Without, by the product
            itself, which prefers long atoms.
        tolerance: See above.
        memory_limit: Bytes that may be taken for the work.
        form: ``residual``, ``gram``, or ``auto`` for the faster one.

    Raises:
        ValueError: If ``k`` is not from 1 to the number of atoms, widths differ, a value is not
            finite, the form is unknown, or the memory is too small for it.

    Example:
        >>> codes = orthogonal_matching_pursuit(
        ...     torch.tensor([[3.0, 4.0, 0.0]]), torch.eye(3), k=2)
        >>> codes.ids.tolist(), codes.coefficients.tolist()
        ([[1, 0]], [[4.0, 3.0]])
    """
    _check(targets, atoms, k, form)
    dtype = torch.promote_types(torch.promote_types(targets.dtype, atoms.dtype), torch.float32)
    correlations, size = _correlations(
        len(targets), atoms, k, dtype, normalise=normalise, memory_limit=memory_limit, form=form
    )
    found = [
        _codes(batch.to(dtype), correlations, k, tolerance) for batch in torch.split(targets, size)
    ]
    return SparseCodes(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _correlations(
    num_targets: int,
    atoms: Tensor,
    k: int,
    dtype: torch.dtype,
    *,
    normalise: bool,
    memory_limit: int,
    form: Form,
) -> tuple[Correlations, int]:
    """The form to take, and the size of its batches."""
    norms = torch.cat([part.to(dtype).norm(dim=1) for part in torch.split(atoms, 8192)])
    scale = norms.reciprocal() if normalise else torch.ones_like(norms)
    scale = torch.where(norms > 0, scale, 0)
    shape = (*atoms.shape, k, memory_limit, dtype.itemsize)
    gram = form == "gram" or (form == "auto" and is_gram_faster(num_targets, *shape))
    size = batch_size(*shape, gram=gram)
    if size < 1:
        raise ValueError(
            f"memory_limit of {memory_limit} bytes is too small for one target in the "
            f"{'Gram' if gram else 'residual'} form, with {len(atoms)} atoms of width "
            f"{atoms.shape[1]} and k = {k}."
        )
    kind = GramCorrelations if gram else ResidualCorrelations
    return kind(atoms, scale, dtype, memory_limit), size


def _codes(targets: Tensor, correlations: Correlations, k: int, tolerance: float) -> SparseCodes:
    """The codes of a batch of targets ``(batch, dim)``."""
    solver = _LeastSquares(len(targets), k, targets.device)
    ids = torch.zeros(len(targets), k, dtype=torch.long, device=targets.device)
    is_open = torch.ones(len(targets), dtype=torch.bool, device=targets.device)
    least = tolerance * targets.norm(dim=1)
    correlations.start(targets, k)
    for step in range(k):
        values, new = correlations.best()
        chosen = correlations.atoms[new].to(targets.dtype)
        is_open &= values > least * chosen.norm(dim=1) * correlations.scale[new]
        if not is_open.any():
            break
        ids[:, step] = new
        so_far = ids[:, : step + 1]
        products = correlations.add(so_far, chosen)
        is_open &= solver.add(products, torch.linalg.vecdot(targets, chosen), is_open)
        correlations.update(so_far, solver.coefficients[:, : step + 1])
    ids *= torch.arange(k, device=ids.device) < solver.counts.unsqueeze(1)
    return SparseCodes(ids, solver.coefficients.to(targets.dtype), solver.counts)


class _LeastSquares:
    """Coefficients of growing sets of atoms, one set for each target of a batch, in float64.

    With the Cholesky factor L of the products between a target's atoms and M its inverse, the
    coefficients are ``M.T @ M @ dots``. A new atom adds a row ``m`` to M and ``(m @ dots) * m`` to
    the coefficients.
    """

    def __init__(self, batch: int, k: int, device: torch.device) -> None:
        self._inverse = torch.zeros(batch, k, k, dtype=torch.float64, device=device)
        self._dots = torch.zeros(batch, k, dtype=torch.float64, device=device)
        self.coefficients = torch.zeros(batch, k, dtype=torch.float64, device=device)
        self.counts = torch.zeros(batch, dtype=torch.long, device=device)

    def add(self, products: Tensor, dots: Tensor, wanted: Tensor) -> Tensor:
        """Add an atom where it is wanted and not in the span of the set.

        Args:
            products: Of the new atom with those of the set, and with itself, ``(batch, s + 1)``.
            dots: Of the new atom with the target, ``(batch,)``.
            wanted: Which targets take it, ``(batch,)``.

        Returns:
            Which targets took it, ``(batch,)``.
        """
        step = products.shape[1] - 1
        products = products.double()
        inverse = self._inverse[:, :step, :step]
        shadow = inverse @ products[:, :step, None]  # of the new atom on the span of the set
        height = products[:, step] - shadow.square().sum(dim=(1, 2))
        taken = wanted & (height > _DEPENDENT * products[:, step])
        factor = torch.where(taken, height, torch.inf).rsqrt()
        row = self._inverse[:, step, : step + 1]
        row[:, :step] = -factor[:, None] * (shadow.mT @ inverse).squeeze(1)
        row[:, step] = factor
        self._dots[:, step] = dots.double().where(taken, 0)
        along = torch.linalg.vecdot(row, self._dots[:, : step + 1])
        self.coefficients[:, : step + 1] += along[:, None] * row
        self.counts += taken
        return taken


def _check(targets: Tensor, atoms: Tensor, k: int, form: str) -> None:
    fits = targets.ndim == atoms.ndim == 2 and targets.shape[1] == atoms.shape[1]
    if not fits:
        raise ValueError(
            "Expected targets (targets, dim) and atoms (atoms, dim) of the same width, got "
            f"{tuple(targets.shape)} and {tuple(atoms.shape)}."
        )
    if not 1 <= k <= len(atoms):
        raise ValueError(f"k must be from 1 to the number of atoms, {len(atoms)}: got {k}.")
    if form not in get_args(Form):
        raise ValueError(f"form must be one of {', '.join(get_args(Form))}: got {form!r}.")
    for name, rows in (("targets", targets), ("atoms", atoms)):
        # A sum says it without a mask as large as the rows; only a huge value overflows it.
        if not rows.sum(dtype=torch.float64).isfinite():
            raise ValueError(f"Expected finite {name}, got values that are nan or inf.")
