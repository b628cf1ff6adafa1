"""Rows composed from the rows of a token's pieces."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from lightning_vocab.initializers.base import Initializer, PieceBags, RowContext, required_bias
from lightning_vocab.initializers.moments import row_norms
from lightning_vocab.initializers.scripts import script_of

InputNorm = Literal["script", "none"]
OutputWeights = Literal["characters", "uniform"]


class SubwordMean(Initializer):
    """Each row is composed from the rows of the token's pieces; asymmetric where untied.

    Input row: mean of the pieces' input rows, rescaled to the median norm of the base rows of the
    token's script. Output row: mean of the pieces' output rows, weighted by their characters, not
    rescaled: a longer output row makes the model predict the token too often. This was the best of
    20 strategies in "Beyond Initialization Loss" (arXiv 2608.03494). Where the model is tied one
    row serves both ends, and it is the plain mean of the pieces, whatever the arguments say.

    A token of one piece gets a copy of its row, not rescaled. A script of which the base has no
    token takes the median norm of all rows. The head's bias, where there is one, is composed like
    the output row.

    Args:
        input_norm: ``script`` rescales input rows as above; ``none`` leaves the mean as it is.
        output_weights: ``characters`` weights a piece by the characters of its text (1 at least);
            ``uniform`` counts every piece once.

    Raises:
        ValueError: If an argument is none of its choices.
    """

    def __init__(
        self, input_norm: InputNorm = "script", output_weights: OutputWeights = "characters"
    ) -> None:
        if input_norm not in get_args(InputNorm):
            raise ValueError(f"input_norm must be script or none: got {input_norm!r}.")
        if output_weights not in get_args(OutputWeights):
            raise ValueError(
                f"output_weights must be characters or uniform: got {output_weights!r}."
            )
        self.input_norm = input_norm
        self.output_weights = output_weights

    @override
    def rows(self, context: RowContext) -> tuple[Tensor, Tensor | None]:
        """Input rows and, if untied, output rows ``(num_new, dim)``."""
        inputs = _composed(context, context.input_rows, _uniform(context.pieces))
        if context.output_rows is None:
            return inputs, None
        if self.input_norm == "script":
            inputs = _rescaled(context, inputs)
        return inputs, _composed(context, context.output_rows, self._output_weights(context))

    @override
    def bias(self, context: RowContext) -> Tensor:
        """Head bias of the new rows ``(num_new,)``, composed from the pieces' biases."""
        column = required_bias(context).unsqueeze(1)
        weights = _uniform(context.pieces)
        if context.output_rows is not None:
            weights = self._output_weights(context)
        return _composed(context, column, weights).squeeze(1)

    def _output_weights(self, context: RowContext) -> Tensor:
        if self.output_weights == "uniform":
            return _uniform(context.pieces)
        unique, inverse = torch.unique(context.pieces.ids, return_inverse=True)
        lengths = [max(1, len(text)) for text in context.texts(unique.tolist())]
        return torch.tensor(lengths, dtype=torch.long, device=inverse.device)[inverse]


def _uniform(pieces: PieceBags) -> Tensor:
    return torch.ones_like(pieces.ids)


def _composed(context: RowContext, rows: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of each token's pieces in ``rows`` ``(base_rows, dim)``: ``(num_new, dim)``."""
    dtype = torch.promote_types(rows.dtype, torch.float32)
    pieces = PieceBags(*(part.to(rows.device) for part in context.pieces))
    weights = weights.to(rows.device, dtype)
    totals = weights.new_zeros(len(pieces.counts)).index_add(0, pieces.bag, weights)
    # Only the rows of pieces are cast: the matrix may be a hundred times larger.
    unique, inverse = torch.unique(pieces.ids, return_inverse=True)
    return F.embedding_bag(
        inverse,
        rows[unique].to(dtype),
        pieces.offsets,
        mode="sum",
        per_sample_weights=weights / totals[pieces.bag],
    )


def _rescaled(context: RowContext, inputs: Tensor) -> Tensor:
    """Bring composed rows to their script's norm; a copy of one piece stays."""
    norms = inputs.norm(dim=1)
    is_sum = (context.pieces.counts > 1) & (norms > 0)
    scale = torch.where(is_sum, _script_norms(context) / norms, 1.0)
    return inputs * scale.unsqueeze(1)


def _script_norms(context: RowContext) -> Tensor:
    """Median norm of the base rows that share each new token's script, ``(num_new,)``."""
    wanted = [script_of(token.surface) for token in context.expansion.tokens]
    norms = row_norms(context.input_rows, context.base_ids)
    scripts = [script_of(text) for text in context.texts(context.base_ids.tolist())]
    medians = dict.fromkeys(wanted, float(norms.quantile(0.5)))
    for script in medians.keys() & set(scripts):
        members = torch.tensor([found == script for found in scripts], device=norms.device)
        medians[script] = float(norms[members].quantile(0.5))
    found = [medians[script] for script in wanted]
    return torch.tensor(found, dtype=norms.dtype, device=norms.device)
