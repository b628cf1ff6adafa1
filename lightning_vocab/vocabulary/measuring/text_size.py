"""How long documents are, in units that no tokenizer has a say in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import regex

from lightning_vocab.vocabulary.characters import NUM_CODE_POINTS
from lightning_vocab.vocabulary.corpus import check_unicode
from lightning_vocab.vocabulary.measuring.code_points import (
    Offsets,
    code_points_matching,
    code_points_of,
    count_by_document,
)
from lightning_vocab.vocabulary.measuring.graphemes import count_graphemes

SplitWords = Callable[[str], Sequence[str]]
"""Cuts a document into words; what has no letter and no digit in it is not counted as one."""

UNITS = ("bytes", "characters", "graphemes", "words", "letters", "letters_without_blanks")
"""Columns of `document_units`."""

_LETTER_OR_DIGIT = regex.compile(r"[\p{L}\p{N}]")
_BATCH_CHARACTERS = 500_000  # encodings of a batch take about a hundred bytes a token
_LETTER, _WORDLIKE, _BLANK, _WITHOUT_BLANKS = 1, 2, 4, 8
_PATTERNS = {
    _LETTER: r"\p{L}+",
    _WORDLIKE: r"[\p{L}\p{N}]+",
    _WITHOUT_BLANKS: r"[[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
    r"\p{Han}\p{Hiragana}\p{Katakana}]&&\p{L}]+",
}


@dataclass(frozen=True)
class TextSize:
    """How long a text is.

    Args:
        num_documents: Documents.
        num_bytes: Bytes in UTF-8.
        num_characters: Unicode code points.
        num_words: Strings between blanks that hold a letter or a digit, or what a word splitter
            made. None without a splitter where most letters belong to a script that sets no blanks
            between words (Thai, Lao, Khmer, Myanmar, Tibetan, Chinese characters, Kana): there
            such a string is a sentence.
        num_graphemes: Extended grapheme clusters; None where they were not counted.
    """

    num_documents: int
    num_bytes: int
    num_characters: int
    num_words: int | None
    num_graphemes: int | None = None

    @classmethod
    def from_units(cls, num_documents: int, sums: npt.NDArray[np.int64]) -> TextSize:
        """The size of documents whose `document_units` have these ``sums``, ``(6,)``.

        Raises:
            ValueError: If there is no text.
        """
        found = dict(zip(UNITS, sums.tolist(), strict=True))
        if not found["bytes"]:
            raise ValueError(
                "Expected text to measure the fertility on, got none: every document is empty, "
                "or none came."
            )
        has_words = 2 * found["letters_without_blanks"] <= found["letters"]
        return cls(
            num_documents=num_documents,
            num_bytes=found["bytes"],
            num_characters=found["characters"],
            num_words=found["words"] if has_words else None,
            num_graphemes=found["graphemes"] or None,
        )


def document_units(
    texts: Sequence[str],
    *,
    graphemes: bool = True,
    words: Sequence[Sequence[str]] | None = None,
) -> npt.NDArray[np.int64]:
    """The length of each document in each of `UNITS`, in a few passes over all of them at once.

    Args:
        texts: The documents, checked by `corpus.check_unicode`.
        graphemes: Whether to count graphemes; the column is 0 otherwise.
        words: The words of each document; by default blanks part them. Where words are given there
            are words in every script, so no letter counts as one without blanks.

    Returns:
        ``(num_documents, 6)``.
    """
    codes, ends = code_points_of(texts)
    kinds = _kinds()[codes]
    found = np.zeros((len(texts), len(UNITS)), np.int64)
    found[:, 0] = [len(text.encode()) for text in texts]
    found[:, 1] = np.diff(ends, prepend=0)
    if graphemes:
        found[:, 2] = count_graphemes(texts, codes, ends)
    found[:, 4] = count_by_document(kinds & _LETTER > 0, ends)
    if words is None:
        found[:, 3] = count_by_document(_word_starts(kinds, ends), ends)
        found[:, 5] = count_by_document(kinds & _WITHOUT_BLANKS > 0, ends)
    else:
        found[:, 3] = [sum(map(is_word, each)) for each in words]
    return found


def is_word(text: str) -> bool:
    """Whether there is a letter or a digit in ``text``."""
    return _LETTER_OR_DIGIT.search(text) is not None


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Documents in batches of half a million characters or a little more.

    Raises:
        TypeError: If ``texts`` is one string, or a document is no string; the message names it.
        ValueError: If a document holds a lone surrogate; the message names it.
    """
    if isinstance(texts, str):
        raise TypeError("Expected an iterable of documents, got one string: put it into a list.")
    batch: list[str] = []
    size = first = 0
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"Document {number} must be a string, got {type(text).__name__}.")
        batch.append(text)
        size += len(text)
        if size >= _BATCH_CHARACTERS:
            check_unicode(batch, first)
            yield batch
            batch, size, first = [], 0, number + 1
    if batch:
        check_unicode(batch, first)
        yield batch


def _word_starts(kinds: npt.NDArray[np.uint8], ends: Offsets) -> npt.NDArray[np.bool_]:
    """The first letter or digit of each string between blanks that has one."""
    cuts = (kinds & _BLANK > 0).astype(np.int32)
    inner = ends[ends < len(kinds)]
    cuts[inner] += 1  # a document ends a word
    is_wordlike = kinds & _WORDLIKE > 0
    is_wordlike[1:] &= ~is_wordlike[:-1] | (cuts[1:] > 0)  # the first of a run will do
    places = np.flatnonzero(is_wordlike)
    strings = cuts.cumsum(dtype=np.int32)[places]  # number of the string between blanks
    is_start = np.zeros(len(kinds), bool)
    is_start[places[np.diff(strings, prepend=-1) > 0]] = True
    return is_start


@lru_cache(maxsize=1)
def _kinds() -> npt.NDArray[np.uint8]:
    """What each code point is, ``(0x110000,)``; a blank is what `str.split` cuts at."""
    table = np.zeros(NUM_CODE_POINTS, np.uint8)
    for flag, pattern in _PATTERNS.items():
        table[code_points_matching(pattern)] |= flag
    table[[code for code in range(0x10000) if chr(code).isspace()]] |= _BLANK
    return table
