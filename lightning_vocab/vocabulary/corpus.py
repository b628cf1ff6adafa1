"""A stream of documents in batches, checked on the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

BATCH_CHARACTERS = 250_000
"""Characters from which on a batch is full; encodings of it take about a hundred bytes a token."""


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Documents in batches of similar size.

    A document is never divided, for a cut could change the tokens beside it: memory grows with the
    longest document, by about 170 bytes a character of English while it is encoded. Give a large
    file line by line or paragraph by paragraph.

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
        if size >= BATCH_CHARACTERS:
            yield _checked(batch, first)
            batch, size, first, is_empty = [], 0, index + 1, False
    if size:
        yield _checked(batch, first)
    elif is_empty:
        raise ValueError("There is no text to learn from: every document is empty, or none came.")


def check_unicode(texts: Sequence[str], first: int = 0) -> None:
    """Refuse half a surrogate pair, which no Unicode text holds and no tokenizer takes.

    The Rust side would not say where it stands.

    Args:
        texts: The documents.
        first: Number of the first of them.

    Raises:
        ValueError: If a document has one; the message names the document.
    """
    for number, text in enumerate(texts, start=first):
        if text.isascii():  # a string knows this of itself
            continue
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"Document {number} holds a lone surrogate ({text[error.start]!a} at character "
                f"{error.start}), so it is no Unicode text: read the file as UTF-8, or drop it."
            ) from error


def _checked(batch: Sequence[str], first: int) -> list[str]:
    """The batch without empty documents."""
    check_unicode(batch, first)
    return [text for text in batch if text]
