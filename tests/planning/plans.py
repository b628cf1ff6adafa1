"""Plans of curves that are written by hand: no text and no tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lightning_vocab.planning.points import Budget, Plan
from lightning_vocab.rows.model_size import ModelSize
from lightning_vocab.vocabulary.measuring.growth_curve import GrowthCurve, Lineage

KNOWN = ModelSize(1000, 16, True, False, num_backbone_parameters=10_000)
UNKNOWN = ModelSize(1000, unknown_because="nobody knows")


def curve(made: Sequence[int], num_tokens_before: int = 100_000) -> GrowthCurve:
    """A text of 400,000 bytes in which new token ``k`` is made ``made[k]`` times."""
    num_new = len(made)
    lineage = Lineage(
        ids=np.arange(1000, 1000 + num_new),
        parts=np.full((num_new, 2), -1),
        spared=np.ones(num_new, np.int64),
    )
    return GrowthCurve(lineage, 10, 400_000, num_tokens_before, np.array(made, np.int64))


def plan(
    made: Sequence[int],
    *,
    held_out: Mapping[str, Sequence[int]] | None = None,
    model: ModelSize = UNKNOWN,
    base_rows: int = 1000,
    num_slots: int = 0,
    floor: int = 1,
    training_tokens: float | None = None,
) -> Plan:
    """A plan whose held-out text is like its growth text, if no other is given."""
    return Plan(
        growth=curve(made),
        held_out={name: curve(each) for name, each in (held_out or {"text": made}).items()},
        model=model,
        base_rows=base_rows,
        first_new_row=1000,
        num_slots=num_slots,
        budget=Budget(training_tokens=training_tokens, floor=floor, batch_size=2, block_size=100),
    )
