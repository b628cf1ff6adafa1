"""Rows composed from the rows of a token's pieces."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from typing_extensions import override

from lightning_vocab.initializers.base import Initializer, PieceBags, RowContext, required_bias
from lightning_vocab.initializers.combined import sums_of_bags
from lightning_vocab.initializers.moments import row_norms
from lightning_vocab.initializers.piece_weights import PieceWeights, piece_weights
from lightning_vocab.initializers.scripts import script_of

InputNorm = Literal["script", "all", "none"]


class SubwordMean(Initializer):
    """Each row is composed from the rows of the token's pieces; asymmetric where untied.

    ``row = sum(w_i * rows[piece_i]) / sum(w_i)``, with weights of its own at each end. Input row:
    mean of the pieces' input rows, rescaled to the median norm of the base rows of the token's
    script. Output row: mean of the pieces' output rows, weighted by their characters, not rescaled:
    a longer output row makes the model predict the token too often. This was the best of 20
    strategies in "Beyond Initialization Loss" (arXiv 2608.03494). Where the model is tied one row
    serves both ends, and it is the plain mean of the pieces, or of the weights asked for, never
    rescaled: an end that a norm does not suit would get it, too.

    A token of one piece gets a copy of its row, not rescaled. A script of which the base has no
    token takes the median norm of all rows. The head's bias, where there is one, is composed like
    the output row.

    Cost: each piece is read once at each end; the norms read each base row once. Memory: where the
    base is in half precision, the rows of the different pieces in float32.

    Args:
        input_norm: ``script`` rescales input rows as above; ``all`` to the median norm of all base
            rows that have a token; ``none`` leaves the mean as it is.
        output_weights: How much a piece counts in an output row: ``characters``, ``bytes``,
            ``uniform``, ``position`` (halved from the first piece on; AdaptiVocab, arXiv
            2503.19693), ``first`` or ``last`` (that piece alone). See `piece_weights`.
        input_weights: The same for an input row; ``position`` halves from the last piece back.
        tied_weights: The same where the model is tied; ``position`` as in an input row.

    Raises:
        ValueError: If an argument is none of its choices.
    """

    def __init__(
        self,
        input_norm: InputNorm = "script",
        output_weights: PieceWeights = "characters",
        input_weights: PieceWeights = "uniform",
        tied_weights: PieceWeights = "uniform",
    ) -> None:
        _check_choice("input_norm", input_norm, get_args(InputNorm))
        _check_choice("output_weights", output_weights, get_args(PieceWeights))
        _check_choice("input_weights", input_weights, get_args(PieceWeights))
        _check_choice("tied_weights", tied_weights, get_args(PieceWeights))
        self.input_norm = input_norm
        self.output_weights = output_weights
        self.input_weights = input_weights
        self.tied_weights = tied_weights

    @override
    def rows(self, context: RowContext) -> tuple[Tensor, Tensor | None]:
        """Input rows and, if untied, output rows ``(num_new, dim)``."""
        if context.output_rows is None:
            weights = piece_weights(context, self.tied_weights, "input")
            return _composed(context, context.input_rows, weights), None
        weights = piece_weights(context, self.input_weights, "input")
        inputs = _composed(context, context.input_rows, weights)
        if self.input_norm != "none":
            inputs = _rescaled(context, inputs, self.input_norm)
        weights = piece_weights(context, self.output_weights, "output")
        return inputs, _composed(context, context.output_rows, weights)

    @override
    def bias(self, context: RowContext) -> Tensor:
        """Head bias of the new rows ``(num_new,)``, composed from the pieces' biases."""
        column = required_bias(context).unsqueeze(1)
        if context.output_rows is None:
            weights = piece_weights(context, self.tied_weights, "input")
        else:
            weights = piece_weights(context, self.output_weights, "output")
        return _composed(context, column, weights).squeeze(1)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}: got {value!r}.")


def _composed(context: RowContext, rows: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of each token's pieces in ``rows`` ``(base_rows, dim)``: ``(num_new, dim)``."""
    dtype = torch.promote_types(rows.dtype, torch.float32)
    pieces = PieceBags(*(part.to(rows.device) for part in context.pieces))
    weights = weights.to(rows.device, dtype)
    totals = weights.new_zeros(len(pieces.counts)).index_add(0, pieces.bag, weights)
    return sums_of_bags(rows, pieces.ids, pieces.offsets, weights / totals[pieces.bag])


def _rescaled(context: RowContext, inputs: Tensor, norm: InputNorm) -> Tensor:
    """Bring composed rows to the norm of their script or of all; a copy of one piece stays."""
    norms = inputs.norm(dim=1)
    is_sum = (context.pieces.counts > 1) & (norms > 0)
    wanted = _script_norms(context) if norm == "script" else _common_norm(context)
    return inputs * torch.where(is_sum, wanted / norms, 1.0).unsqueeze(1)


def _common_norm(context: RowContext) -> Tensor:
    """Median norm of the base rows that have a token, a scalar."""
    return row_norms(context.input_rows, context.base_ids).quantile(0.5)


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
