"""Fertility as a metric that adds up over batches and ranks."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from transformers import PreTrainedTokenizerBase
from typing_extensions import override

from lightning_vocab.vocabulary.fingerprint import backend
from lightning_vocab.vocabulary.measuring.measured_text import MeasuredText, measure_text
from lightning_vocab.vocabulary.measuring.text_fertility import RATIOS
from lightning_vocab.vocabulary.measuring.text_size import UNITS, SplitWords

_NAME = "tokenizer"


class Fertility(Metric):
    """Tokens that a tokenizer needs for text, and what they are; lower is better.

    Sums are kept and reduced across ranks, never means: the value does not depend on batches or
    ranks. `compute` gives a dict of floats: ``tokens_per_byte``, ``tokens_per_character``,
    ``tokens_per_grapheme``, ``tokens_per_word``, each with the bounds ``…_low`` and ``…_high`` of
    its 95 % bootstrap interval over documents; ``words_in_one_token_share``, ``unknown_share``,
    ``byte_fallback_share``, ``partial_character_share``, ``vocabulary_used_share`` and
    ``renyi_efficiency`` (higher is better). What does not apply is left out: words where most
    letters belong to a script without blanks and no splitter is given, an interval of one document.

    Args:
        tokenizer: The tokenizer.
        split_words: Cuts a document into words; by default blanks do.
        num_resamples: Bootstrap resamples; 0 for no intervals.
        seed: Seed of the resamples. The weights of an update follow from the seed and its text, so
            ranks need no seeds of their own.
        kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ValueError: On ``compute``, if there was no text; a rank alone may have none.

    Example:
        >>> from lightning_vocab.demo import resolve_base
        >>> from lightning_vocab.vocabulary import load_tokenizer
        >>> metric = Fertility(load_tokenizer(resolve_base("demo")))
        >>> metric.update(["once upon a time", "there was a cat"])
        >>> found = metric.compute()
        >>> found["tokens_per_byte"] < found["tokens_per_word"]
        True
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    num_documents: Tensor
    units: Tensor
    counts: Tensor
    one_token_words: Tensor
    resampled: Tensor

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        split_words: SplitWords | None = None,
        num_resamples: int = 500,
        seed: int = 7,
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)
        self.tokenizer = tokenizer
        self.split_words = split_words
        self.seed = seed
        ids: dict[str, int] = backend(tokenizer).get_vocab(with_added_tokens=True)
        # float32, which Apple's GPUs know: the resamples only give an interval.
        states = {
            "num_documents": torch.tensor(0),
            "units": torch.zeros(len(UNITS), dtype=torch.long),
            "counts": torch.zeros(max(ids.values()) + 1, dtype=torch.long),
            "one_token_words": torch.zeros(2, dtype=torch.long),
            "resampled": torch.zeros(num_resamples, len(UNITS) + 1),
        }
        for name, value in states.items():
            self.add_state(name, value, dist_reduce_fx="sum")

    @override
    def update(self, texts: Sequence[str]) -> None:
        """Add documents.

        Args:
            texts: The documents; empty ones count as documents.

        Raises:
            TypeError: If it is one string, or a document is no string.
            ValueError: If a document holds a lone surrogate.
        """
        if isinstance(texts, Sequence) and not isinstance(texts, str) and not any(texts):
            self.num_documents = self.num_documents + len(texts)
            return
        found = measure_text(
            {_NAME: self.tokenizer},
            texts,
            split_words=self.split_words,
            num_resamples=len(self.resampled),
            seed=self._seed_of(texts),
        )
        counts = torch.from_numpy(found.counts[_NAME])
        one_token_words = torch.tensor(found.one_token_words.get(_NAME, (0, 0)))
        self.num_documents = self.num_documents + found.num_documents
        self.units = self.units + torch.from_numpy(found.units).to(self.units)
        self.counts[: len(counts)] += counts.to(self.counts)
        self.one_token_words = self.one_token_words + one_token_words.to(self.one_token_words)
        self.resampled = self.resampled + found.resampled.to(self.resampled)

    @override
    def compute(self) -> dict[str, float]:
        """The figures of everything added so far, on all ranks."""
        one, all_ = self.one_token_words.tolist()
        found = MeasuredText(
            num_documents=int(self.num_documents),
            units=self.units.cpu().numpy(),
            counts={_NAME: self.counts.cpu().numpy()},
            one_token_words={_NAME: (one, all_)},
            resampled=self.resampled.cpu(),
        ).figures(_NAME, self.tokenizer)
        intervals = found.pop("intervals")
        figures = {name: float(value) for name, value in found.items() if value is not None}
        for ratio in RATIOS:
            if intervals[ratio] is not None:
                figures[f"{ratio}_low"], figures[f"{ratio}_high"] = intervals[ratio]
        return figures

    def _seed_of(self, texts: Sequence[str]) -> int:
        """Other text, other weights: two ranks must not resample alike."""
        return zlib.crc32("\0".join(map(str, texts)).encode(errors="replace"), self.seed)
