"""Which text a run reads for what, and the rows that come of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

import datasets
from torch.utils.data import DataLoader

from lightning_vocab.data.cache import KnownTokenizer, RowCache
from lightning_vocab.data.growing import Tokenizers
from lightning_vocab.data.loader import evaluation_loader
from lightning_vocab.data.rows import Collate, PackedRows, StoredRows
from lightning_vocab.data.shards import shards_of
from lightning_vocab.data.sources import Role, TextSource
from lightning_vocab.data.streamed_rows import StreamedRows
from lightning_vocab.data.tokenise import Layout, frame_of
from lightning_vocab.vocabulary.measuring.fertility import compare_fertility
from lightning_vocab.vocabulary.whole_files import write_whole

NamedSources: TypeAlias = Mapping[str, tuple[TextSource, ...]]

FERTILITY_DOCUMENTS = 10_000
"""Documents of each source, from its beginning, on which the fertility is measured."""


@dataclass(frozen=True)
class TextPlan:
    """The sources of a run with their layouts, and the cache that holds their rows.

    Args:
        train: Text to train on.
        validation: Text to validate on, by name.
        test: Text to test on, by name.
        train_layout: How the training text becomes rows.
        scored_layout: How the text to validate and test on becomes rows.
        cache: Where the rows are kept.
        shuffle_buffer: Documents of streamed training text that are shuffled together; None where
            the training text is tokenised into the cache.
    """

    train: tuple[TextSource, ...]
    validation: NamedSources
    test: NamedSources
    train_layout: Layout
    scored_layout: Layout
    cache: RowCache
    shuffle_buffer: int | None = None

    @property
    def is_streamed(self) -> bool:
        """Whether the training text is tokenised while it is read."""
        return self.shuffle_buffer is not None

    def check(self, roles: Sequence[Role]) -> None:
        """Read every source once, so that what is wrong with one is said before any work.

        Of streamed text, that is the first document of each source.

        Args:
            roles: What text is wanted for.
        """
        for role in roles:
            for source in self._sources(role):
                self.cache.check(source)

    def prepare(self, roles: Sequence[Role], tokenizers: Tokenizers) -> None:
        """Tokenise what is not tokenised yet; validation text with the base tokenizer too.

        Streamed text is only checked.

        Args:
            roles: What text is wanted for.
            tokenizers: The tokenizers to cut with.
        """
        wanted: list[tuple[TextSource, KnownTokenizer, Layout]] = []
        for role in roles:
            if role == "train" and self.is_streamed:
                self.check((role,))
                continue
            layout = self.train_layout if role == "train" else self.scored_layout
            wanted += [(source, tokenizers.grown, layout) for source in self._sources(role)]
            if role == "validation":
                wanted += [(source, tokenizers.base, layout) for source in self._sources(role)]
        missing = [each for each in wanted if not self.cache.holds(*each)]
        for source, _, _ in missing:
            self.cache.check(source)
        for each in missing:
            self.cache.prepare(*each)

    def training_rows(self, known: KnownTokenizer) -> PackedRows | StoredRows:
        """The rows to train on, of all sources one after the other.

        Args:
            known: The tokenizer that they were cut with.

        Raises:
            FileNotFoundError: If they are not in the cache.
        """
        loaded = [self.cache.load(source, known, self.train_layout) for source in self.train]
        if self.train_layout.kind != "packed":
            return StoredRows(datasets.concatenate_datasets(loaded))
        frame = frame_of(known.tokenizer)
        first_id = None if frame.starts_documents else frame.start
        return PackedRows(loaded, self.train_layout.block_size, first_id)

    def streamed_rows(self, known: KnownTokenizer, batch_size: int, **options: Any) -> StreamedRows:
        """Batches of rows to train on, cut while the text is read, of all sources mixed.

        Args:
            known: The tokenizer to cut with.
            batch_size: Rows of a batch.
            options: Seed, workers, number of ranks and rank, as `StreamedRows` takes them.
        """
        assert self.shuffle_buffer is not None
        return StreamedRows(
            list(chain.from_iterable(map(shards_of, self.train))),
            known.tokenizer,
            self.train_layout,
            Collate(frame_of(known.tokenizer).pad),
            batch_size=batch_size,
            shuffle_buffer=self.shuffle_buffer,
            **options,
        )

    def scored_loaders(
        self,
        role: Literal["validation", "test"],
        known: KnownTokenizer,
        *,
        num_replicas: int,
        **options: Any,
    ) -> list[DataLoader[Any]]:
        """Loaders of the rows to validate or test on, in the order of their names.

        Args:
            role: Validation or test.
            known: The tokenizer that the rows were cut with.
            num_replicas: Number of ranks, to which empty rows fill up.
            options: Batch size, workers and rank, as `evaluation_loader` takes them.

        Raises:
            FileNotFoundError: If the rows are not in the cache.
        """
        named = self.validation if role == "validation" else self.test
        frame = frame_of(known.tokenizer)
        loaders = []
        for sources in named.values():
            loaded = [self.cache.load(source, known, self.scored_layout) for source in sources]
            rows = StoredRows(_numbered_through(loaded), num_replicas, frame.start)
            loaders.append(
                evaluation_loader(rows, Collate(frame.pad), num_replicas=num_replicas, **options)
            )
        return loaders

    def fertility(self, tokenizers: Tokenizers) -> dict[str, dict[str, Any]]:
        """Fertility of the training text (``train``) and of each validation text, before and after.

        Measured once on the first `FERTILITY_DOCUMENTS` documents of each source and kept as JSON
        in the cache's folder.

        Args:
            tokenizers: The tokenizers to compare.
        """
        named = {**({"train": self.train} if self.train else {}), **self.validation}
        key = self.cache.key(
            [[name, *map(self.cache.identify, sources)] for name, sources in named.items()],
            [tokenizers.base.fingerprint, tokenizers.grown.fingerprint],
            [self.train_layout.block_size, FERTILITY_DOCUMENTS],
        )
        place = self.cache.folder / f"fertility-{key}.json"

        def write(path: Path) -> None:
            report = {name: self._compare(each, tokenizers) for name, each in named.items()}
            path.write_text(json.dumps(report, indent=2), encoding="utf-8")

        if not place.exists():
            write_whole(place, write)
        report: dict[str, dict[str, Any]] = json.loads(place.read_text(encoding="utf-8"))
        return report

    def _sources(self, role: Role) -> Iterator[TextSource]:
        if role == "train":
            return iter(self.train)
        named = self.validation if role == "validation" else self.test
        return chain.from_iterable(named.values())

    def _compare(self, sources: tuple[TextSource, ...], tokenizers: Tokenizers) -> dict[str, Any]:
        expanded = tokenizers.expanded
        comparison = compare_fertility(
            tokenizers.base.tokenizer,
            tokenizers.grown.tokenizer,
            self._first_documents(sources),
            () if expanded is None else expanded.expansion.new_ids,
        )
        return comparison.to_dict(self.train_layout.block_size)

    def _first_documents(self, sources: tuple[TextSource, ...]) -> Iterator[str]:
        for source in sources:
            yield from islice(self.cache.read(source), FERTILITY_DOCUMENTS)


def _numbered_through(parts: list[datasets.Dataset]) -> datasets.Dataset:
    """The rows of several sources as one, in which no two documents have one number."""
    if len(parts) == 1:
        return parts[0]
    numbered, first = [], 0
    for rows in parts:
        documents = rows.with_format("numpy")["document"][:] + first
        numbered.append(rows.remove_columns("document").add_column("document", documents))
        first = int(documents.max()) + 1
    return datasets.concatenate_datasets(numbered)
