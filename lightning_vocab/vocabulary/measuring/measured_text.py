"""A text measured with several tokenizers in one pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Encoding, Tokenizer
from torch import Generator, Tensor
from transformers import PreTrainedTokenizerBase

from lightning_vocab.functional.bootstrap import ratio_interval, resampled_sums
from lightning_vocab.vocabulary.fingerprint import backend, without_limits
from lightning_vocab.vocabulary.measuring.text_fertility import (
    RATIOS,
    TextFertility,
    fertility_figures,
)
from lightning_vocab.vocabulary.measuring.text_size import (
    UNITS,
    SplitWords,
    TextSize,
    batches,
    document_units,
)
from lightning_vocab.vocabulary.measuring.token_use import Counts, token_use
from lightning_vocab.vocabulary.measuring.word_tokens import word_cores, words_in_one_token

Tokenizers = Mapping[str, PreTrainedTokenizerBase]


@dataclass(frozen=True)
class MeasuredText:
    """Sums over a text, for several tokenizers; two texts add up.

    Args:
        num_documents: Documents.
        units: Sums over the documents of each of `UNITS`, ``(6,)``.
        counts: Occurrences of each id, ``(num_ids,)``, for each tokenizer.
        one_token_words: Words in one token and words looked at, for each tokenizer; empty where
            words were not looked at.
        resampled: Sums of `UNITS` and then of the tokens of each tokenizer over the resamples,
            ``(num_resamples, 6 + num_tokenizers)``.
    """

    num_documents: int
    units: npt.NDArray[np.int64]
    counts: Mapping[str, Counts]
    one_token_words: Mapping[str, tuple[int, int]]
    resampled: Tensor

    def __add__(self, other: MeasuredText) -> MeasuredText:
        """Both texts together; their resamples are independent if their seeds were."""
        words = {
            name: (sum(single), sum(looked_at))
            for name in {**self.one_token_words, **other.one_token_words}
            for single, looked_at in [zip(*_found(name, self, other), strict=True)]
        }
        return MeasuredText(
            num_documents=self.num_documents + other.num_documents,
            units=self.units + other.units,
            counts={
                name: _together(counts, other.counts[name]) for name, counts in self.counts.items()
            },
            one_token_words=words,
            resampled=self.resampled + other.resampled,
        )

    @property
    def size(self) -> TextSize:
        """The text's size."""
        return TextSize.from_units(self.num_documents, self.units)

    def fertility(self, name: str) -> TextFertility:
        """The fertility of one tokenizer."""
        return TextFertility(self.size, int(self.counts[name].sum()))

    def counts_of(self, name: str, ids: Sequence[int]) -> Counts:
        """Occurrences of some ids by one tokenizer, ``(len(ids),)``."""
        counts = self.counts[name]
        room = np.zeros(max(len(counts), max(ids, default=0) + 1), np.int64)
        room[: len(counts)] = counts
        return room[list(ids)]

    def resampled_tokens(self, name: str) -> Tensor:
        """Tokens of one tokenizer over the resamples, ``(num_resamples,)``."""
        return self.resampled[:, len(UNITS) + list(self.counts).index(name)]

    def interval(self, ratio: str, name: str) -> tuple[float, float] | None:
        """The 95 % bootstrap interval over documents of one of `RATIOS` for one tokenizer.

        None if there are fewer than two documents, which cannot tell how far documents differ, or
        nothing was resampled.
        """
        if self.num_documents < 2:
            return None
        below = self.resampled[:, UNITS.index(RATIOS[ratio])]
        return ratio_interval(self.resampled_tokens(name), below)

    def figures(self, name: str, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        """All figures of one tokenizer as plain values.

        Args:
            name: Its name.
            tokenizer: The tokenizer itself.

        Raises:
            ValueError: If it makes no token of the text.
        """
        if not self.counts[name].any():
            raise ValueError(
                f"The tokenizer {name!r} makes no token of {self.size.num_characters:,} characters "
                "of text: it drops every one of them. Leave it or the text out."
            )
        use = token_use(tokenizer, self.counts[name])
        figures = fertility_figures(self.fertility(name), use, self.one_token_words.get(name))
        figures["intervals"] = {
            ratio: None if figures[ratio] is None else self.interval(ratio, name)
            for ratio in RATIOS
        }
        return figures


def measure_text(
    tokenizers: Tokenizers,
    texts: Iterable[str],
    *,
    graphemes: bool = True,
    word_tokens: bool = True,
    split_words: SplitWords | None = None,
    num_resamples: int = 500,
    seed: int = 7,
    on_batch: Callable[[int], None] | None = None,
) -> MeasuredText:
    """Cut ``texts`` with every tokenizer, in one pass over the texts.

    Rust cuts the next batch while this one is counted. Memory: a batch, the counts, and with
    ``word_tokens`` every distinct word.

    Args:
        tokenizers: The tokenizers by name.
        texts: Documents, read once and a batch at a time.
        graphemes: Whether to count graphemes.
        word_tokens: Whether to count the words in one token, for which each distinct word is
            encoded once; not done where words are not told apart.
        split_words: Cuts a document into words; by default blanks do.
        num_resamples: Bootstrap resamples of the documents; 0 for none.
        seed: Seed of the resamples. Texts whose documents are aligned need the same one.
        on_batch: Called with the number of documents of each batch that is done.

    Raises:
        TypeError: If a document is not a string.
        ValueError: If there is no text or no tokenizer, or a document holds a lone surrogate.
    """
    if not tokenizers:
        raise ValueError("Expected at least one tokenizer, got none.")
    counter = _Counter(tokenizers, num_resamples, Generator().manual_seed(seed))
    for batch, encoded in _encoded(list(map(backend, tokenizers.values())), batches(texts)):
        split = None if split_words is None else list(map(split_words, batch))
        counter.add(document_units(batch, graphemes=graphemes, words=split), encoded)
        if word_tokens:
            counter.words.update("\n".join(batch).split() if split is None else chain(*split))
        if on_batch is not None:
            on_batch(len(batch))
    return counter.measured(after_blank=split_words is None)


class _Counter:
    def __init__(self, tokenizers: Tokenizers, num_resamples: int, generator: Generator) -> None:
        self.tokenizers = tokenizers
        self.generator = generator
        self.num_documents = 0
        self.units = np.zeros(len(UNITS), np.int64)
        self.counts = [np.zeros(len(each), np.int64) for each in tokenizers.values()]
        self.words: Counter[str] = Counter()
        self.resampled = torch.zeros(
            num_resamples, len(UNITS) + len(tokenizers), dtype=torch.float64
        )

    def add(self, units: npt.NDArray[np.int64], encoded: list[list[Encoding]]) -> None:
        self.num_documents += len(units)
        self.units += units.sum(0)
        found, lengths = zip(*map(count_ids, encoded), strict=True)
        self.counts = list(map(_together, self.counts, found))
        if len(self.resampled):
            values = torch.from_numpy(np.column_stack([units, *lengths]))
            self.resampled += resampled_sums(values, len(self.resampled), self.generator)

    def measured(self, *, after_blank: bool) -> MeasuredText:
        size = TextSize.from_units(self.num_documents, self.units)
        cores = word_cores(self.words) if size.num_words else Counter()
        one_token = {
            name: words_in_one_token(tokenizer, cores, after_blank=after_blank) if cores else None
            for name, tokenizer in self.tokenizers.items()
        }
        total = cores.total()
        return MeasuredText(
            num_documents=self.num_documents,
            units=self.units,
            counts=dict(zip(self.tokenizers, self.counts, strict=True)),
            one_token_words={
                name: (found, total) for name, found in one_token.items() if found is not None
            },
            resampled=self.resampled,
        )


def count_ids(encodings: list[Encoding]) -> tuple[Counts, npt.NDArray[np.int64]]:
    """Occurrences of each id up to the highest, and the length of each encoding."""
    ids = [encoding.ids for encoding in encodings]
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    flat = np.fromiter(chain.from_iterable(ids), np.int64, int(lengths.sum()))
    return np.bincount(flat), lengths


def _encoded(
    tokenizers: list[Tokenizer], text_batches: Iterator[list[str]]
) -> Iterator[tuple[list[str], list[list[Encoding]]]]:
    """Each batch with what every tokenizer made of it, one batch ahead of who asks."""

    def encode(batch: list[str]) -> list[list[Encoding]]:
        return [each.encode_batch_fast(batch, add_special_tokens=False) for each in tokenizers]

    with ExitStack() as stack:
        for tokenizer in tokenizers:
            stack.enter_context(without_limits(tokenizer))
        worker = stack.enter_context(ThreadPoolExecutor(1))
        ahead = None
        for batch in text_batches:
            following = (batch, worker.submit(encode, batch))
            if ahead is not None:
                yield ahead[0], ahead[1].result()
            ahead = following
        if ahead is not None:
            yield ahead[0], ahead[1].result()


def _found(name: str, *texts: MeasuredText) -> list[tuple[int, int]]:
    return [text.one_token_words[name] for text in texts if name in text.one_token_words]


def _together(one: Counts, other: Counts) -> Counts:
    """Counts added up; ids may go beyond ``len(tokenizer)`` where a vocabulary has holes."""
    shorter, longer = sorted((one, other), key=len)
    total = longer.copy()
    total[: len(shorter)] += shorter
    return total
