"""What a method could do, and what it left to another: said, never silent."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lightning_vocab.initializers.base import Initializer, RowContext
from lightning_vocab.vocabulary.wording import some


@dataclass(frozen=True)
class Coverage:
    """How many new tokens a method made rows for, and who made the others.

    Args:
        method: Name of the method.
        num_tokens: New tokens that it was asked for.
        missing: Surfaces of the tokens that it could not do.
        fallback: Name of the method that made those; None where there are none.
    """

    method: str
    num_tokens: int
    missing: tuple[str, ...]
    fallback: str | None

    @property
    def share(self) -> float:
        """Share of the tokens that the method itself did, from 0 to 1."""
        return 1 - len(self.missing) / self.num_tokens

    def __str__(self) -> str:
        done = self.num_tokens - len(self.missing)
        said = f"{self.method} made {done} of {self.num_tokens} new tokens ({self.share:.1%})"
        if not self.missing:
            return f"{said}."
        return f"{said}; {self.fallback} made the other {len(self.missing)}: {some(self.missing)}."


def spoken(coverage: Coverage | None, fallback: Initializer | None) -> list[str]:
    """A coverage in words and, where tokens were left to a fallback, the fallback's own remarks.

    Args:
        coverage: What a method could do; None before it was asked.
        fallback: Made the others.
    """
    if coverage is None:
        return []
    others = fallback.remarks() if coverage.missing and fallback is not None else []
    return [str(coverage), *others]


def covered_by(
    method: str, context: RowContext, is_covered: Tensor, fallback: Initializer | None
) -> Coverage:
    """The coverage of a method, or an error where tokens are left and nobody makes them.

    Args:
        method: Name of the method.
        context: The context of the new tokens.
        is_covered: Whether the method does each of them, ``(num_new,)``.
        fallback: Makes the others.

    Raises:
        ValueError: If a token is left and there is no fallback.
    """
    tokens = context.expansion.tokens
    missing = tuple(tokens[place].surface for place in (~is_covered).nonzero().flatten().tolist())
    if missing and fallback is None:
        raise ValueError(
            f"{method} has nothing to make {len(missing)} of {len(tokens)} new tokens from, such "
            f"as {some(missing)}: give it a fallback, such as SubwordMean, or more to go by."
        )
    return Coverage(method, len(tokens), missing, type(fallback).__name__ if missing else None)
