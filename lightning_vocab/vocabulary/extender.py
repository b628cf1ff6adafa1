"""What every way of growing a tokenizer has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from transformers import PreTrainedTokenizerBase

from lightning_vocab.vocabulary.expansion import ExpandedTokenizer, VocabularyExpansion

_PUBLIC = "lightning_vocab.vocabulary"


class Extender(ABC):
    """Grows a tokenizer from texts; the base tokenizer itself is never changed.

    Its settings are plain values, so that the manifest can hold them.
    """

    @abstractmethod
    def extend(
        self,
        tokenizer: PreTrainedTokenizerBase,
        texts: Iterable[str],
        *,
        base_rows: int | None = None,
    ) -> ExpandedTokenizer:
        """The grown tokenizer and its manifest.

        Args:
            tokenizer: The base tokenizer.
            texts: Documents to learn from, read once and never held together in memory.
            base_rows: Height of the base model's embedding matrix, ``len(tokenizer)`` if not given.
        """

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """The settings on which the result depends, as plain JSON values."""

    def description(self) -> dict[str, Any]:
        """Class and settings, as the manifest's ``extender`` field holds them.

        The class stands with its module: extenders of other packages may share its name. One of
        this package stands with the place where it is public, which does not move.
        """
        mine = type(self)
        is_ours = mine.__module__.startswith(f"{_PUBLIC}.")
        module = _PUBLIC if is_ours else mine.__module__
        return {"class": f"{module}.{mine.__qualname__}", "args": self.arguments()}

    def has_built(self, expansion: VocabularyExpansion) -> bool:
        """Whether an expansion was made by this class with these settings.

        Args:
            expansion: A manifest, such as one read from an expansion folder.
        """
        mine = self.description()
        return {key: expansion.extender.get(key) for key in mine} == mine
