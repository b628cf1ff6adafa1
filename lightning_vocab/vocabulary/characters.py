"""Unicode properties of all code points as lookup tables, for work on whole corpora at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import regex

NUM_CODE_POINTS = 0x110000

OTHER, LETTER, DIGIT, SPACE = range(4)
"""Classes of characters between which a word ends where the base has no pre-tokenizer."""

WANTED, FOREIGN = 1, 2
"""Marks of `script_table`: of a wanted script; a letter of any other script."""

# Joiners stand inside words of many scripts; variation selectors are marks, but they follow emoji.
_CLASSES = {
    LETTER: r"[\p{L}\p{M}\u200C\u200D--[\uFE00-\uFE0F]]",
    DIGIT: r"\p{N}",
    SPACE: r"[\s\p{Z}]",
}


@lru_cache(maxsize=1)
def class_table() -> npt.NDArray[np.uint8]:
    """`LETTER` (marks too), `DIGIT`, `SPACE` or `OTHER` for each code point, ``(0x110000,)``."""
    table = np.full(NUM_CODE_POINTS, OTHER, np.uint8)
    for value, pattern in _CLASSES.items():
        table[_matches(pattern)] = value
    return table


@lru_cache(maxsize=8)
def script_table(scripts: tuple[str, ...]) -> npt.NDArray[np.uint8]:
    """`WANTED`, `FOREIGN` or 0 (blanks, digits, punctuation) for each code point, ``(0x110000,)``.

    Args:
        scripts: Names of Unicode scripts, such as ``Thai``; checked by `check_scripts`.
    """
    table = np.zeros(NUM_CODE_POINTS, np.uint8)
    table[_matches(r"\p{L}")] = FOREIGN
    for script in scripts:
        table[_matches(rf"\p{{Script={script}}}")] = WANTED
    return table


def check_scripts(scripts: Sequence[str] | None) -> tuple[str, ...]:
    """The names as a tuple, all of them known.

    Args:
        scripts: Names of Unicode scripts, or None for all.

    Raises:
        TypeError: If it is no list of strings.
        ValueError: If the list is empty or a name is not a Unicode script.
    """
    if scripts is None:
        return ()
    if isinstance(scripts, str):
        raise TypeError(f"Expected a list of script names, got the string {scripts!r}.")
    if not isinstance(scripts, Sequence) or not all(isinstance(name, str) for name in scripts):
        raise TypeError(f"Expected a list of script names in scripts, got {scripts!r:.100}.")
    if not scripts:
        raise ValueError("Expected at least one script name, got an empty list: use None for all.")
    for script in scripts:
        try:
            is_name = bool(regex.fullmatch(r"[A-Za-z_ -]+", script))
            known = is_name and regex.compile(rf"\p{{Script={script}}}") is not None
        except regex.error:
            known = False
        if not known:
            raise ValueError(
                f"Unknown script {script!r}: expected a Unicode script name such as Thai, Latin, "
                "Han, Devanagari or Arabic."
            )
    return tuple(scripts)


def _matches(pattern: str) -> npt.NDArray[np.int64]:
    found = regex.findall(pattern, _every_character(), flags=regex.VERSION1)
    return np.frombuffer("".join(found).encode("utf-32-le"), np.uint32).astype(np.int64)


@lru_cache(maxsize=1)
def _every_character() -> str:
    return "".join(map(chr, [*range(0xD800), *range(0xE000, NUM_CODE_POINTS)]))
