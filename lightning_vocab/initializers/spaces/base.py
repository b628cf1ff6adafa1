"""What a method that goes by likeness needs to know of tokens: vectors in one space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from lightning_vocab.initializers.base import RowContext
from lightning_vocab.vocabulary.wording import some


@dataclass(frozen=True, eq=False)
class TokenVectors:
    """Vectors of the new tokens and of the base's tokens in one space, on the CPU in float32.

    Args:
        new: Vectors of the new tokens, ``(num_new, width)``; zeros where unknown.
        knows_new: Which new tokens the space has a vector for, ``(num_new,)``.
        old: Vectors of the base tokens ``context.base_ids``, ``(num_old, width)``.
        knows_old: Which of those the space has a vector for, ``(num_old,)``.

    Raises:
        ValueError: If shapes do not fit, or a vector that is known is not finite or is zero: it
            has no direction.
    """

    new: Tensor
    knows_new: Tensor
    old: Tensor
    knows_old: Tensor

    def __post_init__(self) -> None:
        for name, vectors, knows in (
            ("new", self.new, self.knows_new),
            ("old", self.old, self.knows_old),
        ):
            if vectors.ndim != 2 or knows.shape != vectors.shape[:1]:
                raise ValueError(
                    f"Expected vectors of {name} tokens (tokens, width) and a flag for each, got "
                    f"{tuple(vectors.shape)} and {tuple(knows.shape)}."
                )
            known = vectors[knows]
            if not (known.isfinite().all() and known.any(dim=1).all()):
                raise ValueError(
                    f"Expected finite vectors other than zero for the {name} tokens that the "
                    "space knows: mark the others as unknown."
                )
        if self.new.shape[1] != self.old.shape[1]:
            raise ValueError(
                f"Expected new and old vectors of one width, got {self.new.shape[1]} and "
                f"{self.old.shape[1]}."
            )

    def coverage(self, name: str, context: RowContext) -> str:
        """How many tokens the space knows, in words.

        Args:
            name: Name of the space.
            context: The context that the vectors were made for.
        """
        tokens = context.expansion.tokens
        missing = [
            tokens[place].surface for place in (~self.knows_new).nonzero().flatten().tolist()
        ]
        said = (
            f"{name} knows {len(tokens) - len(missing)} of {len(tokens)} new tokens and "
            f"{int(self.knows_old.sum())} of {len(self.knows_old)} base tokens"
        )
        return f"{said}; not {some(missing)}." if missing else f"{said}."


class AuxiliarySpace(ABC):
    """Gives tokens vectors, old and new ones in one space."""

    @abstractmethod
    def vectors(self, context: RowContext) -> TokenVectors:
        """Vectors of the new tokens and of the tokens ``context.base_ids``.

        Args:
            context: The base's rows, the new tokens and their pieces.
        """
