"""Text files, files of JSON lines and Parquet files as one table with the column ``text``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow  # type: ignore[import-untyped]  # it ships no types
import pyarrow.parquet  # type: ignore[import-untyped]  # it ships no types
from datasets.exceptions import DatasetGenerationError

from lightning_vocab.data.lines import check_utf8, json_rows
from lightning_vocab.data.sources import TextSource, find_files, identify_file, suffix_of

_ENCODING = "utf-8-sig"  # a byte order mark is no text

FEATURES = datasets.Features({"text": datasets.Value("string")})


def read_files(source: TextSource, cache_dir: str | None) -> datasets.Dataset:
    """Every document of the files that ``source`` names, blank ones included.

    Args:
        source: A source whose kind is ``files``.
        cache_dir: Where `datasets` keeps its copy of the text.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If a file cannot be understood; the message names file and line.
    """
    files = find_files(source.path)
    suffix = suffix_of(files[0])
    if suffix == ".txt":
        return _read_text(source, files, cache_dir)
    if suffix == ".parquet":
        return _read_parquet(source, files, cache_dir)
    # The packaged reader of JSON lines takes texts that look like dates for dates.
    arguments = {"files": [identify_file(file) for file in files], "field": source.text_field}
    return generate(json_rows, arguments, cache_dir)


def stream_files(source: TextSource) -> tuple[datasets.IterableDataset, list[Path]]:
    """The documents of files as they stand, a shard for each file that holds any; no copy is made.

    Args:
        source: A source whose kind is ``files``.

    Returns:
        The documents, in the column ``text`` or, of Parquet files, in that of the text field, and
        the files of the shards.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If no file holds anything, or a Parquet file cannot be understood; text is not
            looked at yet.
    """
    files = find_files(source.path)
    suffix = suffix_of(files[0])
    files = _with_content(files)
    if not files:
        raise no_text(source)
    if suffix == ".txt":
        options: dict[str, Any] = {"sample_by": source.sample_by, "encoding": _ENCODING}
        options["chunksize"] = 1 << 20  # characters in memory for each file that is open
    elif suffix == ".parquet":
        files = _with_rows(source, files)
        options = {"columns": [source.text_field], "batch_size": 1000}
    else:
        arguments = {"files": [identify_file(file) for file in files], "field": source.text_field}
        rows = datasets.IterableDataset.from_generator(
            json_rows, features=FEATURES, gen_kwargs=arguments
        )
        return rows, files
    if not files:
        raise no_text(source)
    dataset = datasets.load_dataset(
        "text" if suffix == ".txt" else "parquet",
        data_files=list(map(str, files)),
        split="train",
        streaming=True,
        **options,
    )
    return dataset.with_format("arrow"), files  # read table by table: four times as fast


def generate(
    rows: Callable[..., Iterator[dict[str, Any]]], arguments: dict[str, Any], cache_dir: str | None
) -> datasets.Dataset:
    """What ``rows`` yields, kept by `datasets` under a hash of the function and its arguments.

    Args:
        rows: Gives rows ``{"text": …}``.
        arguments: Plain arguments of ``rows``.
        cache_dir: Where `datasets` keeps them.
    """
    if next(rows(**arguments), None) is None:
        return _nothing()
    try:
        return datasets.Dataset.from_generator(
            rows, features=FEATURES, gen_kwargs=arguments, cache_dir=cache_dir
        )
    except DatasetGenerationError as error:
        raise (error.__cause__ or error) from None  # our own message, which names file and line


def text_column(source: TextSource, dataset: datasets.Dataset) -> datasets.Dataset:
    """The column that the source names, as ``text``.

    Args:
        source: The source.
        dataset: A table of the source.

    Raises:
        ValueError: If there is no such column.
    """
    check_column(source, dataset.column_names, source.path)
    dataset = dataset.select_columns([source.text_field])
    if source.text_field != "text":
        dataset = dataset.rename_column(source.text_field, "text")
    return dataset


def check_column(source: TextSource, names: list[str], place: object) -> None:
    """Raise a ValueError that lists ``names`` if the source's text field is not one of them."""
    if source.text_field not in names:
        raise ValueError(
            f"Expected the column {source.text_field!r} in {place}, which has: "
            f"{', '.join(map(repr, names))}. Name the column that holds the text with text_field."
        )


def no_text(source: TextSource) -> ValueError:
    """The error that a source has no document with text."""
    return ValueError(
        f"No text in {source.path!r}, split {source.split!r}: all documents are blank, or there is "
        "none. Check the path, the split and the text field."
    )


def _read_text(source: TextSource, files: list[Path], cache_dir: str | None) -> datasets.Dataset:
    for file in files:
        check_utf8(**identify_file(file))
    filled = _with_content(files)
    if not filled:
        return _nothing()
    return datasets.load_dataset(
        "text",
        data_files=list(map(str, filled)),
        split="train",
        sample_by=source.sample_by,
        encoding=_ENCODING,
        cache_dir=_folder_of(files, cache_dir),
    )


def _read_parquet(source: TextSource, files: list[Path], cache_dir: str | None) -> datasets.Dataset:
    filled = _with_rows(source, files)
    if not filled:
        return _nothing()
    table = datasets.load_dataset(
        "parquet",
        data_files=list(map(str, filled)),
        columns=[source.text_field],
        split="train",
        cache_dir=_folder_of(files, cache_dir),
    )
    return text_column(source, table)


def _with_content(files: list[Path]) -> list[Path]:
    return [file for file in files if file.stat().st_size]


def _with_rows(source: TextSource, files: list[Path]) -> list[Path]:
    """Those of the Parquet files that hold a row, or what is wrong with one, by its footer."""
    filled = []
    for file in files:
        try:
            metadata = pyarrow.parquet.read_metadata(file)
        except pyarrow.ArrowInvalid as error:
            raise ValueError(f"{file} is not a Parquet file: {error}") from error
        schema = metadata.schema.to_arrow_schema()
        check_column(source, schema.names, file)
        column = schema.field(source.text_field).type
        if not (pyarrow.types.is_string(column) or pyarrow.types.is_large_string(column)):
            raise ValueError(
                f"Expected text in the column {source.text_field!r} of {file}, which has {column}."
            )
        filled += [file] if metadata.num_rows else []
    return filled


def _folder_of(files: list[Path], cache_dir: str | None) -> str:
    """A cache folder of these files as they are: the packaged readers go by the time alone."""
    identity = json.dumps([identify_file(file) for file in files])
    parent = datasets.config.HF_DATASETS_CACHE if cache_dir is None else cache_dir
    return str(Path(parent) / hashlib.sha256(identity.encode()).hexdigest()[:24])


def _nothing() -> datasets.Dataset:
    """No document at all, which the packaged readers do not take."""
    return datasets.Dataset.from_dict({"text": []}, FEATURES)
