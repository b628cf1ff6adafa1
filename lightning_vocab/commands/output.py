"""What commands leave for programs: a JSON file, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning_vocab.vocabulary.whole_files import whole_file


def check_place(path: str | None) -> None:
    """Refuse a place for a file before any work is done.

    Args:
        path: The file to be written; None for none.

    Raises:
        IsADirectoryError: If the path is a folder.
        FileNotFoundError: If its folder does not exist.
    """
    if path is None:
        return
    place = Path(path).expanduser()
    if place.is_dir():
        raise IsADirectoryError(f"Expected a file to write, but {path!r} is a folder.")
    if not place.parent.is_dir():
        raise FileNotFoundError(f"The folder of {path!r} does not exist: make it first.")


def write_json(path: str, value: Any) -> None:
    """Write plain values as indented JSON, in place of an older file of that name.

    Args:
        path: The file.
        value: Plain JSON values; NaN and infinity are refused, since JSON has none.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with whole_file(path) as fresh:
        fresh.write_text(text, encoding="utf-8")
