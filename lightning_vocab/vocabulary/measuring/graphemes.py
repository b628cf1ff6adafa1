"""Graphemes (what a reader takes for one character) of many documents at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import regex

from lightning_vocab.vocabulary.characters import NUM_CODE_POINTS
from lightning_vocab.vocabulary.measuring.code_points import (
    CodePoints,
    Offsets,
    code_points_matching,
    count_by_document,
)

_GRAPHEME = regex.compile(r"\X")
_CLASSES = (
    *("Other", "CR", "LF", "Control", "Extend", "ZWJ", "Regional_Indicator"),
    *("Prepend", "SpacingMark", "L", "V", "T", "LV", "LVT"),
)
_BITS = 4  # of a class
_ZWJ, _FLAG = _CLASSES.index("ZWJ"), _CLASSES.index("Regional_Indicator")
_PICTOGRAPH, _LINKER = 1 << _BITS, 2 << _BITS


def count_graphemes(texts: Sequence[str], codes: CodePoints, ends: Offsets) -> Offsets:
    r"""Extended grapheme clusters (Unicode Standard Annex 29) of each document.

    Exactly as many as ``\X`` of `regex` finds, several times faster: nearly everywhere the class
    of two neighbours decides whether a cluster ends between them, which is one look into a table
    for the whole batch. Documents in which more than two characters matter (flags, pictographs
    joined into one, conjuncts of Indic scripts) are left to `regex`.

    Args:
        texts: The documents.
        codes: Their code points one after the other, ``(num_characters,)``.
        ends: Where each document ends in them, ``(num_documents,)``.

    Returns:
        ``(num_documents,)``.
    """
    if not len(codes):
        return np.zeros(len(texts), np.int64)
    properties = _properties()[codes]
    classes = properties & np.uint8(_PICTOGRAPH - 1)
    is_start = np.ones(len(codes), bool)
    is_start[1:] = _breaks()[classes[:-1] << _BITS | classes[1:]]
    is_start[ends[ends < len(codes)]] = True  # where a document ends, the next one starts
    found = count_by_document(is_start, ends)
    far = np.flatnonzero(_far_reaching(properties, classes))
    for document in np.unique(np.searchsorted(ends, far, side="right")):
        found[document] = len(_GRAPHEME.findall(texts[document]))
    return found


def _far_reaching(
    properties: npt.NDArray[np.uint8], classes: npt.NDArray[np.uint8]
) -> npt.NDArray[np.bool_]:
    """Characters about which two neighbours do not tell: rules GB9c, GB11 and GB12/13."""
    is_far: npt.NDArray[np.bool_] = (classes == _FLAG) | (properties & _LINKER > 0)
    is_far[1:] |= (classes[:-1] == _ZWJ) & (properties[1:] & _PICTOGRAPH > 0)
    return is_far


@lru_cache(maxsize=1)
def _properties() -> npt.NDArray[np.uint8]:
    """Class and flags of each code point, ``(0x110000,)``."""
    table = np.zeros(NUM_CODE_POINTS, np.uint8)
    for number, name in enumerate(_CLASSES[1:], start=1):
        table[code_points_matching(rf"\p{{GCB={name}}}+")] = number
    table[code_points_matching(r"\p{Extended_Pictographic}+")] |= _PICTOGRAPH
    table[code_points_matching(r"\p{InCB=Linker}+")] |= _LINKER
    return table


@lru_cache(maxsize=1)
def _breaks() -> npt.NDArray[np.bool_]:
    """Whether a cluster ends between two classes, at ``left << 4 | right``, as `regex` has it."""
    table = np.ones(1 << 2 * _BITS, bool)
    # Any character of a class will do, but for pictographs and linkers, which have rules of theirs.
    plain = [
        chr(int(np.flatnonzero(_properties() == number)[0])) for number in range(len(_CLASSES))
    ]
    for left, first in enumerate(plain):
        for right, second in enumerate(plain):
            table[left << _BITS | right] = len(_GRAPHEME.findall(first + second)) == 2
    return table
