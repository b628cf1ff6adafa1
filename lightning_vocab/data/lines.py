"""Lines of UTF-8 text and of JSON, where every complaint names the file and the line."""

from __future__ import annotations

import functools
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@functools.lru_cache(maxsize=10_000)
def check_utf8(path: str, num_bytes: int, changed_ns: int) -> None:
    """Read a file, once in a process unless it changes, and make sure that it is UTF-8.

    Args:
        path: The file as `identify_file` describes it.
        num_bytes: Its size.
        changed_ns: When it was changed.

    Raises:
        ValueError: If it is not; the message names the first such line.
    """
    for _ in read_lines(Path(path)):
        pass


def read_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Number (from 1) and text of every line of ``file``, which may be compressed by gzip.

    Raises:
        ValueError: If a line is not UTF-8, or the compressed file is damaged.
        OSError: If the file cannot be read.
    """
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as lines:
        number = 0
        try:
            for number, line in enumerate(lines, start=1):
                text = _decode(line, file, number)
                yield number, text.removeprefix("\ufeff") if number == 1 else text
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{file} cannot be unpacked after line {number}: {error}.") from error


def json_rows(files: list[dict[str, Any]], field: str) -> Iterator[dict[str, str | None]]:
    """Rows ``{"text": …}`` of files of JSON lines; blank lines are passed over.

    Args:
        files: The files as `identify_file` describes them, so that a changed file is read anew.
        field: Name of the field that holds the text; null is no text.

    Raises:
        ValueError: If a line is no JSON object, lacks the field, or holds no text in it, or half a
            surrogate pair, which no UTF-8 text can hold.
    """
    for entry in files:
        file = Path(entry["path"])
        for number, line in read_lines(file):
            if not line.isspace():
                yield {"text": _parse(line, field, f"line {number} of {file}")}


def _parse(line: str, field: str, place: str) -> str | None:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"Expected one JSON object a line; {place} is none: {error}.") from error
    if not isinstance(row, dict) or field not in row:
        found = ", ".join(map(repr, row)) if isinstance(row, dict) else f"no object but {row!r:.80}"
        raise ValueError(
            f"Expected the field {field!r} on {place}, which has {found}. Name the field that "
            "holds the text with text_field."
        )
    text = row[field]
    if not isinstance(text, str | None):
        raise ValueError(f"Expected text in the field {field!r} on {place}, got {text!r:.80}.")
    if text is None:
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"Expected text in the field {field!r} on {place}, got half a surrogate pair "
            f"({text[error.start]!a}) at character {error.start + 1}. Correct or remove the line."
        ) from error
    return text


def _decode(line: bytes, file: Path, number: int) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is not UTF-8: line {number}, byte {error.start + 1} of the line "
            f"(0x{line[error.start]:02x}). Convert the file to UTF-8."
        ) from error
