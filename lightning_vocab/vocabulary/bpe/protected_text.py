"""Text that a user protects: its documents, where they come from, and what a manifest keeps."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_vocab.vocabulary.corpus import BATCH_CHARACTERS


@dataclass(frozen=True)
class ProtectedText:
    """Documents that the grown tokenizer must cut as the base does.

    Args:
        texts: Documents.
        files: Paths of UTF-8 text files, each of which is one document, line ends included. They
            are read anew whenever they are needed, in pieces.
    """

    texts: tuple[str, ...]
    files: tuple[str, ...]

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.texts or self.files)

    def identity(self) -> dict[str, Any] | None:
        """What a manifest holds of the text instead of the text: its size and its SHA-256.

        The order of the documents counts, and not whether they came from files. The files are read
        for it as they are now.

        Raises:
            FileNotFoundError: If a file does not exist.
            ValueError: If a file is not UTF-8, is blank, or holds NUL.
        """
        if not self:
            return None
        reading = ProtectedReading(self)
        for _ in reading.pieces():
            pass
        return reading.identity()


class ProtectedReading:
    """One pass over protected text, and the checksum of what it read.

    Args:
        text: What is protected.
    """

    def __init__(self, text: ProtectedText) -> None:
        self._text = text
        self._digest = hashlib.sha256()
        self._num_documents = self._num_characters = 0

    def pieces(self) -> Iterator[str]:
        """The texts as they are, then the files in pieces, to be read to the end once.

        A file is divided behind the first line end after each 250,000 characters, so that memory
        does not grow with it (but with its longest line); shorter ones stay whole. What a merge
        would join over such a cut is not seen.

        Raises:
            FileNotFoundError: If a file does not exist.
            ValueError: If a file is not UTF-8, is blank, holds NUL, or changes meanwhile.
        """
        for text in self._text.texts:
            data = text.encode()
            self._begin(len(data))
            self._add(text, data)
            yield text
        for file in self._text.files:
            yield from self._of_file(file)

    def identity(self) -> dict[str, Any]:
        """Size and SHA-256 of what was read."""
        return {
            "num_documents": self._num_documents,
            "num_characters": self._num_characters,
            "sha256": self._digest.hexdigest(),
        }

    def _of_file(self, file: str) -> Iterator[str]:
        path = Path(file).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"protected_files names {file!r}: expected a text file there.")
        is_blank = True
        with path.open(encoding="utf-8", newline="") as stream:  # line ends stay as they are
            num_bytes = os.fstat(stream.fileno()).st_size
            self._begin(num_bytes)
            try:
                while piece := "".join(stream.readlines(BATCH_CHARACTERS)):
                    _check_nul(f"Protected file {file!r}", piece)
                    data = piece.encode()
                    num_bytes -= len(data)
                    self._add(piece, data)
                    is_blank = is_blank and not piece.strip()
                    yield piece
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"Protected file {file!r} is not UTF-8: {error.reason} "
                    f"({error.object[error.start : error.end]!r})."
                ) from error
        if num_bytes:
            raise ValueError(f"Protected file {file!r} changed while it was read: start again.")
        if is_blank:
            raise ValueError(f"Protected file {file!r} is blank: leave it out.")

    def _begin(self, num_bytes: int) -> None:
        """A document of so many bytes: where one ends and the next begins counts."""
        self._digest.update(num_bytes.to_bytes(8, "big"))
        self._num_documents += 1

    def _add(self, text: str, data: bytes) -> None:
        self._digest.update(data)
        self._num_characters += len(text)


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
    _check_nul(name, text)
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError(f"{name} holds a lone surrogate, which is no text: {text!r:.100}.")


def _check_nul(name: str, text: str) -> None:
    if "\0" in text:
        raise ValueError(f"{name} holds NUL, which no text should hold: {text!r:.100}.")
