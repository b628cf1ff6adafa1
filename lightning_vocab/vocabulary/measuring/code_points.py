"""Code points: which have a property, and those of many documents one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import regex

CodePoints = npt.NDArray[np.uint32]
Offsets = npt.NDArray[np.int64]


def code_points_matching(pattern: str) -> npt.NDArray[np.int64]:
    r"""Code points of the runs that ``pattern`` finds in all characters in order, ascending.

    Planes 4 to 13, in which nothing is assigned, are not searched.

    Args:
        pattern: A run of characters of a kind, such as ``\p{L}+``; in the syntax of `regex`,
            version 1.
    """
    found = "".join(regex.findall(pattern, _characters(), regex.VERSION1))
    return np.frombuffer(found.encode("utf-32-le"), np.uint32).astype(np.int64)


def code_points_of(texts: Sequence[str]) -> tuple[CodePoints, Offsets]:
    """Code points of all documents one after the other, and where each document ends in them.

    Args:
        texts: The documents.

    Returns:
        ``(num_characters,)`` and ``(num_documents,)``.
    """
    codes = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32)
    return codes, np.fromiter(map(len, texts), np.int64, len(texts)).cumsum()


def count_by_document(is_counted: npt.NDArray[np.bool_], ends: Offsets) -> Offsets:
    """How many characters of each document are marked.

    Args:
        is_counted: A mark for each character, ``(num_characters,)``.
        ends: Where each document ends, ``(num_documents,)``.

    Returns:
        ``(num_documents,)``.
    """
    return np.diff(np.searchsorted(np.flatnonzero(is_counted), ends), prepend=0)


@lru_cache(maxsize=1)
def _characters() -> str:
    planes = [range(0xD800), range(0xE000, 0x40000), range(0xE0000, 0xF0000)]
    return "".join(chr(code) for plane in planes for code in plane)
