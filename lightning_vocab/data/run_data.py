"""What a data module knows of its run: the tokenizers that are loaded, and the ranks."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningDataModule
from transformers import PreTrainedTokenizerBase

from lightning_vocab.data.growing import Tokenizers
from lightning_vocab.vocabulary.expansion import ExpandedTokenizer


class RunDataModule(LightningDataModule):
    """A data module that knows the tokenizers and the ranks of its run; what is read is for others.

    A subclass sets ``_tokenizers`` in `setup`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._tokenizers: Tokenizers | None = None

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that text is cut with: grown if there is an expansion."""
        return self._loaded.grown.tokenizer

    @property
    def base_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the base."""
        return self._loaded.base.tokenizer

    @property
    def expanded(self) -> ExpandedTokenizer | None:
        """The grown tokenizer with its manifest, or None without an expansion."""
        return self._loaded.expanded

    @property
    def _loaded(self) -> Tokenizers:
        if self._tokenizers is None:
            raise RuntimeError("No tokenizer is loaded yet: call prepare_data() and setup() first.")
        return self._tokenizers

    @property
    def _is_first_rank(self) -> bool:
        return self.trainer is None or self.trainer.is_global_zero

    @property
    def _ranks(self) -> dict[str, Any]:
        """Number of ranks that read different rows, and which of them this is."""
        ranks = None if self.trainer is None else self.trainer.distributed_sampler_kwargs
        return ranks or {"num_replicas": 1, "rank": 0}
