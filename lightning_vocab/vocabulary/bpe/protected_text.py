"""Text that a user protects: its documents, where they come from, and what a manifest keeps."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ProtectedText:
    """Documents that the grown tokenizer must cut as the base does.

    Args:
        texts: Documents.
        files: Paths of UTF-8 text files, each of which is one document, line ends included. They
            are read when they are needed, one at a time.
    """

    texts: tuple[str, ...]
    files: tuple[str, ...]

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.texts or self.files)

    def documents(self) -> Iterator[str]:
        """The texts, then the contents of the files.

        Raises:
            FileNotFoundError: If a file does not exist.
            ValueError: If a file is not UTF-8, is blank, or holds NUL.
        """
        yield from self.texts
        for file in self.files:
            yield _read(file)

    @cached_property
    def identity(self) -> dict[str, Any] | None:
        """What a manifest holds of the text instead of the text: its size and its SHA-256.

        The order of the documents counts, and not whether they came from files.

        Raises:
            FileNotFoundError: If a file does not exist.
            ValueError: If a file is not UTF-8, is blank, or holds NUL.
        """
        if not self:
            return None
        digest = hashlib.sha256()
        num_documents = num_characters = 0
        for text in self.documents():
            data = text.encode()
            digest.update(len(data).to_bytes(8, "big"))  # where one ends and the next begins
            digest.update(data)
            num_documents += 1
            num_characters += len(text)
        return {
            "num_documents": num_documents,
            "num_characters": num_characters,
            "sha256": digest.hexdigest(),
        }


def check_protected(texts: Sequence[str] | None, files: Sequence[str] | None) -> ProtectedText:
    """The settings of a user; files are not opened.

    Args:
        texts: Documents, or None.
        files: Paths, or None.

    Raises:
        TypeError: If one of them is a string instead of a list, or an item is not a string.
        ValueError: If a list is empty, or an item is blank, holds NUL or a lone surrogate.
    """
    found = ProtectedText(_items("protected", texts), _items("protected_files", files))
    for index, text in enumerate(found.texts):
        _check_text(f"Text {index} of protected", text)
    for index, path in enumerate(found.files):
        _check_text(f"Path {index} of protected_files", path)
    return found


def _items(name: str, items: Sequence[str] | None) -> tuple[str, ...]:
    if items is None:
        return ()
    if isinstance(items, str) or not isinstance(items, Sequence):
        raise TypeError(f"Expected a list of strings in {name}, got {items!r:.100}.")
    if not items:
        raise ValueError(f"Expected at least one item in {name}, got an empty list: use None.")
    for index, item in enumerate(items):
        if not isinstance(item, str):
            raise TypeError(f"Item {index} of {name} must be a string, got {item!r:.100}.")
    return tuple(items)


def _check_text(name: str, text: str) -> None:
    if not text.strip():
        raise ValueError(f"{name} is {'blank' if text else 'empty'}: {text!r:.100}.")
    if "\0" in text:
        raise ValueError(f"{name} holds NUL, which no text should hold: {text!r:.100}.")
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError(f"{name} holds a lone surrogate, which is no text: {text!r:.100}.")


def _read(file: str) -> str:
    path = Path(file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"protected_files names {file!r}: expected a text file there.")
    try:
        text = path.read_bytes().decode()  # `read_text` would change the line ends
    except UnicodeDecodeError as error:
        raise ValueError(f"Protected file {file!r} is not UTF-8: {error}.") from error
    _check_text(f"Protected file {file!r}", text)
    return text
