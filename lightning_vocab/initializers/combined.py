"""Rows that are weighted sums of base rows, and the fallback for tokens without weights."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from lightning_vocab.initializers.base import Initializer, RowContext, required_bias
from lightning_vocab.initializers.coverage import Coverage, covered_by, spoken


class RowWeights(NamedTuple):
    """Which base rows make each new row, and how much of each; a sparse matrix, row after row.

    Args:
        is_covered: Whether the method has weights for each new token, ``(num_new,)``.
        ids: Ids of base rows, for one covered token after the other, ``(num_weights,)``.
        weights: Weight of each, ``(num_weights,)``.
        counts: Number of weights of each covered token, ``(num_covered,)``.
    """

    is_covered: Tensor
    ids: Tensor
    weights: Tensor
    counts: Tensor


class CombinedRows(Initializer):
    """Base of methods whose rows are weighted sums of base rows, the same at both ends.

    A subclass says the weights; this class sums rows and, where the head has one, biases. Tokens
    without weights are left to the fallback.

    Cost: each weight reads one row. Memory: where the base is in half precision, the base rows that
    have a weight in float32.

    Args:
        fallback: Makes the rows of tokens for which there are no weights. None makes such a token
            an error.
    """

    def __init__(self, fallback: Initializer | None) -> None:
        self.fallback = fallback
        self.coverage: Coverage | None = None
        """What the last call of `rows` could do itself."""

    @abstractmethod
    def weights(self, context: RowContext) -> RowWeights:
        """The base rows of each new row and their weights.

        Args:
            context: The base's rows, the new tokens and their pieces.
        """

    @override
    def rows(self, context: RowContext) -> tuple[Tensor, Tensor | None]:
        """Input rows and, if untied, output rows ``(num_new, dim)``.

        Raises:
            ValueError: If a token has no weights and there is no fallback.
        """
        given = self.weights(context)
        self.coverage = covered_by(type(self).__name__, context, given.is_covered, self.fallback)
        inputs = summed_rows(context.input_rows, given)
        outputs = None if context.output_rows is None else summed_rows(context.output_rows, given)
        return completed(context, given.is_covered, (inputs, outputs), self.fallback)

    @override
    def remarks(self) -> list[str]:
        """The coverage of the last call, and what the fallback says of its own."""
        return spoken(self.coverage, self.fallback)

    @override
    def bias(self, context: RowContext) -> Tensor:
        """Head bias of the new rows ``(num_new,)``: the weighted mean of the base's biases."""
        given = self.weights(context)
        bag = torch.repeat_interleave(given.counts)
        totals = given.weights.new_zeros(len(given.counts)).index_add(0, bag, given.weights)
        mean = given._replace(weights=given.weights / totals[bag])
        biases = summed_rows(required_bias(context).unsqueeze(1), mean).squeeze(1)
        if given.is_covered.all():
            return biases
        missing = covered_by(type(self).__name__, context, given.is_covered, self.fallback).missing
        assert missing
        assert self.fallback is not None, "covered_by has seen to it"
        others = self.fallback.bias(context.only(places_of(~given.is_covered)))
        return merged_rows(given.is_covered, biases, others)


def completed(
    context: RowContext,
    is_covered: Tensor,
    made: tuple[Tensor, Tensor | None],
    fallback: Initializer | None,
) -> tuple[Tensor, Tensor | None]:
    """Rows of all new tokens: those that were made, and the others from the fallback.

    Args:
        context: The context of the new tokens.
        is_covered: Which of them have rows, ``(num_new,)``; all, unless there is a fallback.
        made: Their input rows and, if untied, output rows ``(num_covered, dim)``.
        fallback: Makes the others.
    """
    if is_covered.all():
        return made
    assert fallback is not None, "covered_by has seen to it"
    others = fallback.rows(context.only(places_of(~is_covered)))
    inputs = merged_rows(is_covered, made[0], others[0])
    if made[1] is None or others[1] is None:
        return inputs, None
    return inputs, merged_rows(is_covered, made[1], others[1])


def summed_rows(rows: Tensor, given: RowWeights) -> Tensor:
    """Weighted sums of ``rows`` ``(base_rows, dim)``: ``(num_covered, dim)``, float32 at least."""
    offsets = given.counts.cumsum(0) - given.counts
    return sums_of_bags(rows, given.ids, offsets, given.weights)


def sums_of_bags(rows: Tensor, ids: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of some of ``rows`` ``(base_rows, dim)``: ``(bags, dim)``, float32 at least.

    Args:
        rows: Rows of the base.
        ids: Ids of rows, for one bag after the other, ``(num_weights,)``.
        offsets: Where each bag begins, ``(bags,)``.
        weights: Weight of each, ``(num_weights,)``.
    """
    dtype = torch.promote_types(rows.dtype, torch.float32)
    ids, offsets = ids.to(rows.device), offsets.to(rows.device)
    if rows.dtype != dtype:
        # Only rows that have a weight are cast: the matrix may be a hundred times larger.
        unique, ids = torch.unique(ids, return_inverse=True)
        rows = rows[unique].to(dtype)
    return F.embedding_bag(
        ids, rows, offsets, mode="sum", per_sample_weights=weights.to(rows.device, dtype)
    )


def places_of(mask: Tensor) -> list[int]:
    """Where ``mask`` ``(num_new,)`` is true."""
    return mask.nonzero().flatten().tolist()


def merged_rows(is_first: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Rows of ``first`` where ``is_first``, of ``second`` elsewhere, both in their order."""
    is_first = is_first.to(first.device)
    merged = first.new_empty(len(is_first), *first.shape[1:])
    merged[is_first] = first
    merged[~is_first] = second.to(first)
    return merged
