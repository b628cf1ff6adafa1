"""OFA: mixtures in the coordinates of factorised rows."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from lightning_vocab.initializers.base import Initializer, RowContext
from lightning_vocab.initializers.combined import RowWeights
from lightning_vocab.initializers.moments import gram_matrix
from lightning_vocab.initializers.spaces.base import AuxiliarySpace
from lightning_vocab.initializers.wechsel import WECHSEL


class OFA(WECHSEL):
    """Each row is a mixture of the k nearest base tokens in the main directions of all rows.

    The base's rows are factorised, ``E = U S V'``, and cut to the ``dim`` largest singular values;
    a new token's coordinates are the mixture ``u_t = sum_i softmax(cos(a_t, a_i) / temperature)_i
    U_i`` over the k nearest base tokens, and its row is ``u_t S V'``. The head's rows have a
    factorisation of their own; biases are mixed as they are. Liu et al., "OFA" (Findings of NAACL
    2024, arXiv 2311.08849), where k is 10, the temperature 0.1, dim is 100, 200, 400 or 768, and
    the space holds multilingual word vectors (`FastTextSpace`, `EncoderSpace`); equal texts are
    copied there ignoring case, and here only if they are the very same.

    As ``U_i S V'`` is row i projected on the first ``dim`` columns of V, so is the new row: V comes
    from the ``(width, width)`` matrix ``E' E``, and U is never made.

    Cost: that of `WECHSEL`, and ``num_old * width^2 / 2`` for E' E and ``width^3`` for its
    eigenvectors, for each matrix. Memory: that of `WECHSEL`, ``2 * 8 * width^2`` bytes, and 8,192
    rows in float64. Without ``dim`` the rows are those of `WECHSEL`.

    Args:
        space: Gives tokens vectors.
        dim: Singular values that are kept, at most the width of the rows. None keeps all.
        k: Base tokens in a mixture.
        temperature: Divides the cosines. Small values favour the nearest.
        copy_equal: Whether a token with the text of a base token copies its coordinates.
        fallback: Makes the rows of tokens that the space does not know, such as `SubwordMean`. None
            makes such a token an error.

    Raises:
        ValueError: If ``dim`` or ``k`` is below 1 or the temperature is not positive.

    Example:
        >>> from lightning_vocab.initializers.spaces.base_model import BaseModelSpace
        >>> OFA(BaseModelSpace(), dim=100).k
        10
    """

    def __init__(
        self,
        space: AuxiliarySpace,
        dim: int | None = None,
        k: int = 10,
        temperature: float = 0.1,
        copy_equal: bool = True,
        fallback: Initializer | None = None,
    ) -> None:
        super().__init__(space, k, temperature, fallback)
        self.copy_equal = copy_equal
        if dim is not None and dim < 1:
            raise ValueError(f"dim must be at least 1 singular value, got {dim}.")
        self.dim = dim
        self._is_mixed = torch.zeros(0, dtype=torch.bool)

    @override
    def weights(self, context: RowContext) -> RowWeights:
        """The base rows of each new row and their weights, on the CPU."""
        given = super().weights(context)
        self._is_mixed = given.is_covered
        return given

    @override
    def rows(self, context: RowContext) -> tuple[Tensor, Tensor | None]:
        """Input rows and, if untied, output rows ``(num_new, dim)``.

        Raises:
            ValueError: If more singular values shall be kept than the rows are wide, or a token has
                no weights and there is no fallback.
        """
        width = context.input_rows.shape[1]
        if self.dim is not None and self.dim > width:
            raise ValueError(
                f"OFA keeps dim={self.dim} singular values, but the rows are only {width} wide."
            )
        inputs, outputs = super().rows(context)
        if self.dim is None:
            return inputs, outputs
        inputs = self._projected(inputs, context.input_rows, context.base_ids)
        if outputs is None or context.output_rows is None:
            return inputs, None
        return inputs, self._projected(outputs, context.output_rows, context.base_ids)

    def _projected(self, made: Tensor, rows: Tensor, ids: Tensor) -> Tensor:
        """The mixtures on the main directions of ``rows``; rows of the fallback stay."""
        assert self.dim is not None
        directions = _main_directions(rows, ids, self.dim).to(made)
        is_mixed = self._is_mixed.to(made.device)
        made[is_mixed] = made[is_mixed] @ directions @ directions.T
        return made


def _main_directions(rows: Tensor, ids: Tensor, dim: int) -> Tensor:
    """The first ``dim`` right singular vectors of ``rows[ids]``: ``(width, dim)``, float64."""
    gram = gram_matrix(rows, ids, torch.float64)
    # Eigenvalues ascend; those of the Gram matrix are the squares of the singular values.
    vectors: Tensor = torch.linalg.eigh(gram).eigenvectors
    return vectors[:, -dim:]
