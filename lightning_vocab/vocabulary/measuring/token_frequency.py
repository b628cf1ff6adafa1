"""How often a new row will be trained: tokens that a run never meets are worse than none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table

from lightning_vocab.vocabulary.expansion import NewToken

_NONE_IN_SAMPLE = 3.0  # -ln(0.05): events that are expected at most where none came, at 95 %


@dataclass(frozen=True)
class TokenFrequency:
    """Occurrences of new tokens in a text, and what they make of a training run.

    A row gets a *direct update* wherever its token stands in the training text: as an input, and as
    the target of the position before. (A head row is pushed down everywhere else too, which
    teaches it nothing but that.)

    Args:
        tokens: The new tokens.
        counts: Occurrences of each in the text, ``(num_tokens,)``.
        num_text_tokens: Tokens of the text.
        num_training_tokens: Tokens that the run reads: of one text again and again, or of other
            text of its kind.

    Raises:
        ValueError: If the numbers do not fit together, or there is no text or no training.

    Example:
        >>> token = NewToken(id=9, token="Ġcats", surface=" cats", kind="text", pieces=(3, 4))
        >>> run = TokenFrequency((token,), np.array([2]), 1000, num_training_tokens=50_000)
        >>> run.expected_updates.tolist(), len(run.below(101))
        ([100.0], 1)
    """

    tokens: Sequence[NewToken]
    counts: npt.NDArray[np.int64]
    num_text_tokens: int
    num_training_tokens: int

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.counts) or self.counts.sum() > self.num_text_tokens:
            raise ValueError(
                f"Expected one count for each of {len(self.tokens)} new tokens, together at most "
                f"the {self.num_text_tokens} tokens of the text; got {len(self.counts)} counts of "
                f"together {self.counts.sum()}."
            )
        if self.num_text_tokens < 1 or self.num_training_tokens < 1:
            raise ValueError(
                f"Expected text and training of at least one token, got {self.num_text_tokens} and "
                f"{self.num_training_tokens}."
            )

    @property
    def expected_updates(self) -> npt.NDArray[np.float64]:
        """Direct updates of each row: its share of the text times the tokens of the training."""
        return self.counts.astype(np.float64) * (self.num_training_tokens / self.num_text_tokens)

    @property
    def unseen_at_most(self) -> float:
        """What a row that the text never shows can expect at most, at 95 % (the rule of three).

        Where the text is the training text itself, such a row gets no update at all.
        """
        return _NONE_IN_SAMPLE * self.num_training_tokens / self.num_text_tokens

    def below(self, floor: float) -> list[int]:
        """Places in ``tokens`` of the rows that expect fewer than ``floor``, the rarest first."""
        order = np.argsort(self.counts, kind="stable")
        is_below = self.expected_updates[order] < floor
        places: list[int] = order[is_below].tolist()
        return places

    def to_dict(self, floor: float) -> dict[str, Any]:
        """Plain values: totals, and every row below ``floor``."""
        expected = self.expected_updates
        return {
            "num_text_tokens": self.num_text_tokens,
            "num_training_tokens": self.num_training_tokens,
            "floor": floor,
            "unseen_at_most": self.unseen_at_most,
            "num_rows": len(self.tokens),
            "median_expected_updates": float(np.median(expected)),
            "rows_below_floor": [
                {
                    "id": self.tokens[place].id,
                    "token": self.tokens[place].token,
                    "count": int(self.counts[place]),
                    "expected_updates": float(expected[place]),
                }
                for place in self.below(floor)
            ],
        }

    def table(self, floor: float, max_rows: int = 20) -> Table:
        """The rarest rows below ``floor`` as a rich table.

        Args:
            floor: Direct updates that a row should get.
            max_rows: Rows to show; the title says how many there are.
        """
        below = self.below(floor)
        table = Table(
            title=f"{len(below):,} of {len(self.tokens):,} new rows expect fewer than {floor:g} "
            f"direct updates in {self.num_training_tokens:,} training tokens"
        )
        for title in ("id", "token", "kind", "in the text", "expected"):
            table.add_column(title, justify="left" if title in ("token", "kind") else "right")
        for place in below[:max_rows]:
            token, expected = self.tokens[place], self.expected_updates[place]
            numbers = f"{self.counts[place]:,}", f"{expected:,.1f}"
            table.add_row(str(token.id), ascii(token.surface)[1:-1], token.kind, *numbers)
        if len(below) > max_rows:
            table.caption = f"the {max_rows} rarest are shown"
        return table
