"""The curve of `lightning-vocab plan` at some sizes: what new tokens gain, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
import numpy.typing as npt

from lightning_vocab.functional.vocabulary_cost import (
    VocabularyCost,
    break_even_ratio,
    flop_per_token,
    vocabulary_cost,
)
from lightning_vocab.rows.model_size import ModelSize
from lightning_vocab.vocabulary.measuring.growth_curve import GrowthCurve

SHOWN_SIZES = (0, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
"""Sizes that the tables show, as far as the curve goes."""


@dataclass(frozen=True)
class Budget:
    """What the new tokens will be trained and served with.

    Args:
        training_tokens: Tokens of text to train on; None is the growth text once.
        floor: Occurrences in training below which a row counts as hardly trained.
        batch_size: Rows of text in a batch.
        block_size: Tokens of a row of text.
    """

    training_tokens: float | None = None
    floor: int = 100
    batch_size: int = 8
    block_size: int = 2048


@dataclass(frozen=True)
class PlanPoint:
    """One size of the vocabulary.

    Args:
        num_new_tokens: New tokens.
        tokens_per_byte: On held-out text.
        change: Tokens of held-out text after over before, minus 1.
        change_in_growth_text: The same on the text that the tokens were learned from.
        change_by_source: The same on the held-out text of each source.
        effective_context_bytes: Bytes of held-out text in a row of ``block_size`` tokens.
        tokens_below_floor: New tokens that training will show fewer than ``floor`` times.
        cost: What the rows cost; None where the model's width is unknown.
        flop_per_byte: Forward FLOP per byte of held-out text; None where the size is unknown.
        change_in_flop_per_byte: After over before, minus 1.
        break_even_change: Change of tokens below which compute per byte sinks.
    """

    num_new_tokens: int
    tokens_per_byte: float
    change: float
    change_in_growth_text: float
    change_by_source: dict[str, float]
    effective_context_bytes: float
    tokens_below_floor: int
    cost: VocabularyCost | None
    flop_per_byte: float | None
    change_in_flop_per_byte: float | None
    break_even_change: float | None


@dataclass(frozen=True)
class Plan:
    """Everything that was measured and is known.

    Args:
        growth: Curve of the text that the tokens were learned from.
        held_out: Curve of each source's held-out text.
        model: The model's size.
        base_rows: Height of the base's matrix.
        first_new_row: Row of the first new token where tokens are appended.
        num_slots: Ids of the base that have a row but no text of their own.
        budget: What the tokens are trained with.
    """

    growth: GrowthCurve
    held_out: Mapping[str, GrowthCurve]
    model: ModelSize
    base_rows: int
    first_new_row: int
    num_slots: int
    budget: Budget

    @property
    def largest(self) -> int:
        """The largest size on the curve."""
        return len(self.growth.made)

    @cached_property
    def all_held_out(self) -> GrowthCurve:
        """The curve of the held-out text of all sources together."""
        return reduce(GrowthCurve.joined_with, self.held_out.values())

    def num_added_rows(self, size: int) -> int:
        """Rows by which the matrix grows when ``size`` tokens are appended: padded ones come first.

        Args:
            size: Number of new tokens.
        """
        return max(0, self.first_new_row + size - self.base_rows)

    def expected_occurrences(self, size: int) -> npt.NDArray[np.float64]:
        """How often training will show each of the first ``size`` tokens, ``(size,)``.

        Args:
            size: Number of new tokens.
        """
        counts = self.growth.counts_at(size).astype(np.float64)
        return counts * float(self._repeats()[size])

    def expected_when_made(self) -> npt.NDArray[np.float64]:
        """How often training would show each new token if it were the last one, ``(num_new,)``."""
        expected: npt.NDArray[np.float64] = self.growth.made * self._repeats()[1:]
        return expected

    def flop_per_byte(self) -> npt.NDArray[np.float64] | None:
        """Forward FLOP per byte of held-out text at every size; None where the size is unknown."""
        backbone, width = self.model.num_backbone_parameters, self.model.hidden_size
        if backbone is None or width is None:
            return None
        before = flop_per_token(backbone, self.base_rows, width)
        added = np.maximum(0, self.first_new_row + np.arange(self.largest + 1) - self.base_rows)
        per_token: npt.NDArray[np.float64] = before + 2.0 * width * added
        return per_token * self.all_held_out.tokens_per_byte

    def point(self, size: int) -> PlanPoint:
        """The curve at one size.

        Args:
            size: Number of new tokens, at most `largest`.
        """
        curve, flop = self.all_held_out, self.flop_per_byte()
        backbone, width = self.model.num_backbone_parameters, self.model.hidden_size
        ratio = None
        if backbone is not None and width is not None:
            added = self.num_added_rows(size)
            ratio = break_even_ratio(backbone, self.base_rows, added, width) - 1
        return PlanPoint(
            num_new_tokens=size,
            tokens_per_byte=float(curve.tokens_per_byte[size]),
            change=-float(curve.share_saved[size]),
            change_in_growth_text=-float(self.growth.share_saved[size]),
            change_by_source={
                name: -float(each.share_saved[size]) for name, each in self.held_out.items()
            },
            effective_context_bytes=self.budget.block_size / float(curve.tokens_per_byte[size]),
            tokens_below_floor=int((self.expected_occurrences(size) < self.budget.floor).sum()),
            cost=self._cost(size),
            flop_per_byte=None if flop is None else float(flop[size]),
            change_in_flop_per_byte=None if flop is None else float(flop[size] / flop[0] - 1),
            break_even_change=ratio,
        )

    def shown_sizes(self, *more: int) -> list[int]:
        """Sizes for a table, ascending.

        Args:
            *more: Sizes that must be among them.
        """
        within = {size for size in SHOWN_SIZES if size <= self.largest}
        return sorted(within | {self.largest, *more})

    def curve_sizes(self) -> list[int]:
        """Sizes for a plot: every one at the beginning, about a hundred in all."""
        grid = np.unique(np.geomspace(1, self.largest, 100).round().astype(np.int64))
        return [0, *grid.tolist()]

    def _repeats(self) -> npt.NDArray[np.float64]:
        """How often training goes over the growth text, by number of new tokens."""
        if self.budget.training_tokens is None:
            return np.ones(self.largest + 1)
        return self.budget.training_tokens / self.growth.num_tokens

    def _cost(self, size: int) -> VocabularyCost | None:
        if self.model.hidden_size is None or self.model.is_tied is None:
            return None
        return vocabulary_cost(
            num_rows=self.base_rows,
            num_added_rows=self.num_added_rows(size),
            hidden_size=self.model.hidden_size,
            is_tied=self.model.is_tied,
            has_head_bias=bool(self.model.has_head_bias),
            batch_size=self.budget.batch_size,
            time=self.budget.block_size,
        )
