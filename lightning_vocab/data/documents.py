"""Read the documents of a source, or say which file and line stand in the way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy
from numpy.typing import NDArray
from pyarrow import compute  # type: ignore[import-untyped]  # it ships no types

from lightning_vocab.data.files import generate, read_files, text_column
from lightning_vocab.data.sources import DEMO, TextSource, identify

DEMO_TEXTS = ("code", "english")


@dataclass(frozen=True)
class Documents:
    """The documents of a source that hold text; iterating gives them as strings, again and again.

    Args:
        dataset: The documents, in the one column ``text``.
        num_blank: Documents left out because they are missing or hold nothing but blanks.
    """

    dataset: datasets.Dataset
    num_blank: int

    def __iter__(self) -> Iterator[str]:
        for batch in self.dataset.iter(batch_size=1000):
            yield from batch["text"]

    def __len__(self) -> int:
        return len(self.dataset)


def read_documents(source: TextSource, cache_dir: str | None = None) -> Documents:
    """The documents of ``source``; those that are missing or blank are left out and counted.

    Args:
        source: A source whose split is settled.
        cache_dir: Where `datasets` keeps its copy of the text; its own default if None.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If a file has an unknown suffix, is not UTF-8 or is not JSON, lacks the text
            field or holds something else than text in it (the message names file and line), if
            there is no such split, or if the source has no text at all.
        OSError: If a file cannot be read or the hub cannot be reached.
    """
    dataset = _readers[source.kind](source, cache_dir)
    if source.max_documents is not None:
        dataset = dataset.select(range(min(source.max_documents, len(dataset))))
    kept = _rows_with_text(dataset)
    num_blank = len(dataset) - len(kept)
    if not len(kept):
        raise ValueError(
            f"No text in {source.path!r}, split {source.split!r}: it has {num_blank} documents and "
            "all are blank. Check the path, the split and the text field."
        )
    return Documents(dataset.select(kept) if num_blank else dataset, num_blank)


def identify_documents(source: TextSource, cache_dir: str | None = None) -> dict[str, Any]:
    """Plain values that change when the text of ``source`` changes.

    `identify`, and for a data set of the hub the fingerprint that `datasets` gives it.
    """
    identity = identify(source)
    if source.kind == "hub":
        identity["fingerprint"] = _read_hub(source, cache_dir)._fingerprint
    return identity


def load_hub(source: TextSource, cache_dir: str | None, **options: Any) -> Any:
    """What `datasets` loads for the name of a data set, or why it cannot.

    Args:
        source: A source whose kind is ``hub``.
        cache_dir: Where `datasets` keeps its copy of the text.
        options: More arguments of `datasets.load_dataset`.

    Raises:
        OSError: If there is no such data set or the hub cannot be reached.
    """
    try:
        return datasets.load_dataset(
            source.path, source.name, split=source.split, cache_dir=cache_dir, **options
        )
    except OSError as error:
        raise type(error)(
            f"{source.path!r} is no file or folder here (looked in {Path.cwd()}), and no data set "
            f"of that name could be loaded: {error}"
        ) from error


def holds_text(texts: Any) -> Any:
    """Whether each of an Arrow array of texts is there and more than blanks, as an Arrow array."""
    length = compute.binary_length(compute.utf8_trim_whitespace(texts))
    return compute.greater(compute.fill_null(length, 0), 0)


def demo_arguments(source: TextSource) -> dict[str, Any]:
    """The arguments of `demo_rows` for ``source``.

    Raises:
        ValueError: If there is no such demo text or split.
    """
    name = source.path.removeprefix(DEMO)
    if name not in DEMO_TEXTS:
        choice = " or ".join(f"{DEMO}{text}" for text in DEMO_TEXTS)
        raise ValueError(f"Expected {choice}, got {source.path!r}.")
    split = _split_name(source, ("train", "validation"))
    # One string: `datasets` takes a list for shards, and calls the generator once for each.
    return {"name": name, "split_name": split, "versions": " ".join(identify(source)["versions"])}


def demo_rows(
    name: str, split_name: Literal["train", "validation"], versions: str
) -> Iterator[dict[str, str]]:
    """Rows ``{"text": …}`` of a demo text; the versions are there to tell its copies apart."""
    from lightning_vocab.demo import corpus

    read = corpus.english if name == "english" else corpus.code
    for text in read(split_name):
        yield {"text": text}


def _rows_with_text(dataset: datasets.Dataset) -> NDArray[numpy.int64]:
    found = [numpy.empty(0, numpy.int64)]
    start = 0
    for batch in dataset.with_format("arrow").iter(batch_size=10_000):
        is_text = holds_text(batch["text"])
        found.append(start + numpy.flatnonzero(is_text.to_numpy()))
        start += len(batch)
    return numpy.concatenate(found)


def _read_files(source: TextSource, cache_dir: str | None) -> datasets.Dataset:
    return _cut(source, read_files(source, cache_dir), ("train",))


def _read_demo(source: TextSource, cache_dir: str | None) -> datasets.Dataset:
    arguments = demo_arguments(source)
    return _cut(source, generate(demo_rows, arguments, cache_dir), (arguments["split_name"],))


def _read_hub(source: TextSource, cache_dir: str | None) -> datasets.Dataset:
    return text_column(source, load_hub(source, cache_dir))


_readers: dict[str, Callable[[TextSource, str | None], datasets.Dataset]] = {
    "files": _read_files,
    "demo": _read_demo,
    "hub": _read_hub,
}


def _cut(
    source: TextSource, dataset: datasets.Dataset, splits: tuple[str, ...]
) -> datasets.Dataset:
    """The slice of ``dataset`` that the source's split names, by the rules of `datasets`."""
    split = _split_name(source, splits)
    if split == source.split:
        return dataset
    parts = datasets.ReadInstruction.from_spec(source.split).to_absolute({split: len(dataset)})
    return dataset.select([row for part in parts for row in range(part.from_, part.to)])


def _split_name(source: TextSource, splits: tuple[str, ...]) -> str:
    names = {part.split("[")[0].strip() for part in re.split(r"\+", source.split or "")}
    if len(names) == 1 and names <= set(splits):
        return names.pop()
    raise ValueError(
        f"{source.path!r} has no split {source.split!r}: expected {' or '.join(splits)}, whole or "
        f"sliced as in '{splits[0]}[:95%]'."
    )
