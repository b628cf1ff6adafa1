"""Which of the new tokens a text uses, and how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_vocab.vocabulary.expansion import NewToken


@dataclass(frozen=True)
class NewTokenUse:
    """How a text uses the new tokens of an expansion.

    Args:
        tokens: The new tokens.
        counts: Occurrences of each in the text, ``(num_tokens,)``.
        num_text_tokens: Tokens of the text.
    """

    tokens: Sequence[NewToken]
    counts: npt.NDArray[np.int64]
    num_text_tokens: int

    @property
    def never_seen(self) -> list[NewToken]:
        """The tokens that the text never shows, in order of id."""
        return [self.tokens[place] for place in np.flatnonzero(self.counts == 0).tolist()]

    def to_dict(self) -> dict[str, Any]:
        """Plain values: shares in total and by kind, quartiles, and the count of every token."""
        seen = Counter(
            token.kind for token, count in zip(self.tokens, self.counts, strict=True) if count
        )
        kinds = Counter(token.kind for token in self.tokens)
        quartiles = np.quantile(self.counts, (0.25, 0.5, 0.75)).tolist()
        return {
            "num_new_tokens": len(self.tokens),
            "num_never_seen": int((self.counts == 0).sum()),
            "used_share": float((self.counts > 0).mean()),
            "used_share_by_kind": {kind: seen[kind] / number for kind, number in kinds.items()},
            "share_of_text_tokens": int(self.counts.sum()) / self.num_text_tokens,
            "count_quartiles": quartiles,
            "counts": [
                {"id": token.id, "token": token.token, "kind": token.kind, "count": count}
                for token, count in zip(self.tokens, self.counts.tolist(), strict=True)
            ],
        }
