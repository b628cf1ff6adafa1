"""A stream of documents in batches, checked on the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

_BATCH_CHARACTERS = 250_000  # encodings of a batch take about a hundred bytes a token


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Documents in batches of similar size.

    Args:
        texts: The documents, read once; empty ones are left out.

    Raises:
        TypeError: If a document is not a string, or ``texts`` is one string.
        ValueError: If a document holds a lone surrogate, or there is no text at all.
    """
    if isinstance(texts, str):
        raise TypeError("Expected an iterable of documents, got one string: put it into a list.")
    batch: list[str] = []
    size = first = 0
    is_empty = True
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"Document {index} must be a string, got {type(text).__name__}.")
        batch.append(text)
        size += len(text)
        if size >= _BATCH_CHARACTERS:
            yield _checked(batch, first)
            batch, size, first, is_empty = [], 0, index + 1, False
    if size:
        yield _checked(batch, first)
    elif is_empty:
        raise ValueError("There is no text to learn from: every document is empty, or none came.")


def _checked(batch: Sequence[str], first: int) -> list[str]:
    """The batch without empty documents; the Rust side would not say where a surrogate stands."""
    for index, text in enumerate(batch, start=first):
        # An ASCII string is known to be one without looking at it.
        if not text.isascii():
            _check_unicode(text, index)
    return [text for text in batch if text]


def _check_unicode(text: str, index: int) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"Document {index} holds a lone surrogate ({text[error.start]!r} at character "
            f"{error.start}), so it is no Unicode text: read the file as UTF-8, or drop it."
        ) from error
