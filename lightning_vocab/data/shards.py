"""Sources read as they stand, without a copy: in shards, each from any document on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import pyarrow  # type: ignore[import-untyped]  # it ships no types

from lightning_vocab.data.documents import demo_arguments, demo_rows, holds_text, load_hub
from lightning_vocab.data.files import FEATURES, check_column, no_text, stream_files
from lightning_vocab.data.lines import check_utf8
from lightning_vocab.data.sources import TextSource, identify, identify_file

_BATCH = 1000  # documents that are read at once where a source is read from end to end


@dataclass(frozen=True)
class Shard:
    """One file of a source, or what `datasets` takes for one.

    Args:
        source: The source.
        name: Says which shard it is, in words that a copy of the source on another machine shares.
        dataset: Its documents, in one or more columns.
        file: The file, if there is one.
    """

    source: TextSource
    name: str
    dataset: datasets.IterableDataset = field(repr=False, compare=False)
    file: Path | None = None

    @property
    def num_bytes(self) -> int | None:
        """Size of the file, if there is one."""
        return None if self.file is None else self.file.stat().st_size

    def read(self, first: int, size: int) -> Iterator[Any]:
        """Documents from the ``first`` on, blank ones included, in Arrow arrays.

        What stands before ``first`` is read and dropped, which is all that `datasets` can do.

        Args:
            first: Documents to leave out.
            size: Documents of an array; the last has fewer.

        Raises:
            ValueError: If the file cannot be understood or there is no text in the text field.
        """
        documents = self.dataset.skip(first) if first else self.dataset
        try:
            for batch in documents.iter(batch_size=size):
                yield self._texts(batch)
        except UnicodeDecodeError:
            if self.file is not None:
                check_utf8(**identify_file(self.file))  # names file and line
            raise

    def _texts(self, batch: Any) -> Any:
        is_table = isinstance(batch, pyarrow.Table)
        names = batch.column_names if is_table else list(batch)
        # Files of lines and the demo text come in the one column `text`, whatever their field is.
        is_ours = names == ["text"] and self.source.kind != "hub"
        column = "text" if is_ours else self.source.text_field
        if column not in names:
            check_column(self.source, names, self.source.path)
        texts = batch[column].combine_chunks() if is_table else pyarrow.array(batch[column])
        kind = pyarrow.types
        if not any(
            is_it(texts.type) for is_it in (kind.is_string, kind.is_large_string, kind.is_null)
        ):
            raise ValueError(
                f"Expected text in the column {column!r} of {self.source.path!r}, got {texts.type}."
            )
        return texts.cast(pyarrow.string())


def shards_of(source: TextSource) -> list[Shard]:
    """The shards of ``source``, in order; one if only its first documents are wanted.

    Args:
        source: A source whose split is settled.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        OSError: If the hub cannot be reached.
        ValueError: If the split is a slice, a file has an unknown suffix or cannot be understood,
            or there is no document at all.
    """
    _refuse_slice(source)
    files: list[Path] = []
    version = ""
    if source.kind == "files":
        dataset, files = stream_files(source)
    elif source.kind == "demo":
        dataset = datasets.IterableDataset.from_generator(
            demo_rows, features=FEATURES, gen_kwargs=demo_arguments(source)
        )
    else:
        dataset = load_hub(source, None, streaming=True).with_format("arrow")
        version = _hub_version(source)
    count = dataset.num_shards
    if source.max_documents is not None:
        return [Shard(source, _name(source, 0, version), dataset.take(source.max_documents))]
    return [
        Shard(
            source,
            _name(source, number, version, files),
            dataset.shard(num_shards=count, index=number),
            files[number] if files else None,
        )
        for number in range(count)
    ]


@dataclass(frozen=True)
class StreamedDocuments:
    """The documents of a source that hold text, read anew whenever they are iterated over.

    Args:
        source: A source whose split is settled.

    Raises:
        ValueError: While iterating, as `shards_of` and `Shard.read` say, and if there is no text.
    """

    source: TextSource

    def __iter__(self) -> Iterator[str]:
        has_text = False
        for shard in shards_of(self.source):
            for texts in shard.read(0, _BATCH):
                kept = with_text(texts)
                has_text = has_text or bool(kept)
                yield from kept
        if not has_text:
            raise no_text(self.source)

    def check(self) -> None:
        """Read the first document, so that what is wrong at first sight is said before any work."""
        next(iter(self))


def with_text(texts: Any) -> list[str]:
    """Those of an Arrow array of texts that are there and more than blanks."""
    kept: list[str] = texts.filter(holds_text(texts)).to_pylist()
    return kept


def identify_stream(source: TextSource) -> dict[str, Any]:
    """Plain values that change when the text of ``source`` changes, found without reading it.

    `identify`, and for a data set of the hub what `datasets` takes for its version.
    """
    identity = identify(source)
    if source.kind == "hub":
        identity["version"] = _hub_version(source)
    return identity


def _hub_version(source: TextSource) -> str:
    version: str = datasets.load_dataset_builder(source.path, source.name).hash
    return version


def _refuse_slice(source: TextSource) -> None:
    split = source.split or ""
    if re.fullmatch(r"[\w.-]+", split) is None:
        raise ValueError(
            f"Expected the name of one split to stream {source.path!r}, got {split!r}: how long a "
            "stream is, is not known. Use max_documents, or several sources."
        )
    if source.kind == "files" and split != "train":
        raise ValueError(f"{source.path!r} has no split {split!r}: expected train.")


def _name(source: TextSource, number: int, version: str, files: Sequence[Path] = ()) -> str:
    options = [source.name, source.split, source.text_field, source.sample_by, source.max_documents]
    if files:
        return f"{files[number].name} {files[number].stat().st_size} {options}"
    path = Path(source.path).name if source.kind == "files" else source.path
    return f"{path} {version} {number} {options}"
