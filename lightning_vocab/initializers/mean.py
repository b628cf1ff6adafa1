"""The mean of the base rows, with noise of their covariance."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from lightning_vocab.initializers.base import Initializer, RowContext, random_rows
from lightning_vocab.initializers.moments import covariance, mean_row

_ROWS = 1024  # new rows that are there twice


class Mean(Initializer):
    """Rows drawn from N(mean, noise² · covariance) of the base rows that have a token.

    Without noise the new tokens together take at most the probability ``m / (n + m)`` (m new rows,
    n base rows; Hewitt, "Initializing New Word Embeddings for Pretrained Language Models", 2021),
    but all rows are the same: they get the same gradients until their contexts differ. The default
    is a noise that spreads the rows over most directions that the base uses, while 500 of them
    still take less than 0.1 % of the probability of two small trained models (noise 1: 8 and 47 %).

    Args:
        noise: Standard deviation of the noise in units of the base rows' own spread: 0 gives the
            mean itself, 1 rows that are spread like the base's.

    Raises:
        ValueError: If ``noise`` is negative.
    """

    def __init__(self, noise: float = 0.3) -> None:
        if not noise >= 0:
            raise ValueError(f"noise must be 0 or positive: got {noise}.")
        self.noise = noise

    @override
    def rows(self, context: RowContext) -> tuple[Tensor, Tensor | None]:
        """Input rows and, if untied, output rows ``(num_new, dim)``, drawn one after the other.

        Cost: one covariance ``(dim, dim)``, ``num_old * dim^2 / 2`` products, and one factorisation
        of it for each matrix. Memory: 8,192 base rows and two matrices ``(dim, dim)`` in float32.
        """
        inputs = self._drawn(context, context.input_rows)
        if context.output_rows is None:
            return inputs, None
        return inputs, self._drawn(context, context.output_rows)

    def _drawn(self, context: RowContext, rows: Tensor) -> Tensor:
        mean = mean_row(rows, context.base_ids)
        if self.noise == 0:
            return mean.expand(context.num_new, -1)
        factor = _square_root(covariance(rows, context.base_ids))
        drawn = random_rows(context).to(rows.device)
        for part in torch.split(drawn, _ROWS):
            part.copy_(torch.addmm(mean, part, factor.T, alpha=self.noise))
        return drawn


def _square_root(matrix: Tensor) -> Tensor:
    """A factor F with ``F @ F.T == matrix`` ``(dim, dim)``, also where the matrix is singular.

    Fewer rows than dimensions, or a dimension that no row uses, make a covariance singular; then
    the eigenvectors take the place of Cholesky. Eigenvalues that are zero but for rounding (the
    bound is that of `torch.linalg.matrix_rank`) are set to zero.
    """
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if failed:
        values, vectors = torch.linalg.eigh(matrix)
        bound = values[-1] * len(values) * torch.finfo(values.dtype).eps
        factor = vectors * values.where(values > bound, 0.0).sqrt()
    return factor
