"""Dictionaries of two languages: pairs of words from a file."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Side = Literal["right", "left"]
"""The column of a dictionary that holds the words of the new tokens."""


@dataclass(frozen=True)
class Dictionary:
    """Translations into the base's language.

    Args:
        translations: For each word, folded by `folded`, its translations as they are written.
        num_pairs: Pairs in the file.
        num_equal: Pairs of which both sides are the same word: they say nothing and are left out.
    """

    translations: dict[str, tuple[str, ...]]
    num_pairs: int
    num_equal: int


def folded(word: str, *, fold_case: bool) -> str:
    """A word as it is looked up: without blanks around it, composed (NFC), and case-folded.

    Args:
        word: The word.
        fold_case: Whether case makes no difference.

    Example:
        >>> folded(" Straße", fold_case=True)
        'strasse'
    """
    text = unicodedata.normalize("NFC", word.strip())
    return unicodedata.normalize("NFC", text.casefold()) if fold_case else text


def read_dictionary(
    path: str | os.PathLike[str], *, new_side: Side = "right", fold_case: bool = True
) -> Dictionary:
    """The pairs of a file in UTF-8: ``.tsv`` with two columns, or ``.jsonl`` with two strings.

    Blank lines are passed over. A word that stands in several pairs has several translations.

    Args:
        path: The file. A line of ``.jsonl`` is an array ``[left, right]``.
        new_side: Which side holds the words of the new tokens.
        fold_case: Whether case makes no difference between words of that side.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has another suffix, a line is no pair of two words, or no pair is left.
    """
    file = Path(path).expanduser()
    if file.suffix not in (".tsv", ".jsonl"):
        raise ValueError(f"Expected a dictionary in a .tsv or .jsonl file, got {str(path)!r}.")
    if not file.is_file():
        raise FileNotFoundError(f"There is no dictionary at {str(path)!r}.")
    parse = _json_pair if file.suffix == ".jsonl" else _tab_pair
    lines = enumerate(file.read_text(encoding="utf-8-sig").split("\n"), start=1)
    pairs = [parse(line, f"line {number} of {file}") for number, line in lines if line.strip()]
    if new_side == "left":
        pairs = [(right, left) for left, right in pairs]
    return _gathered(pairs, str(file), fold_case=fold_case)


def _gathered(pairs: Iterable[tuple[str, str]], file: str, *, fold_case: bool) -> Dictionary:
    found: dict[str, dict[str, None]] = {}
    num_pairs = num_equal = 0
    for base, new in pairs:
        num_pairs += 1
        word = folded(new, fold_case=fold_case)
        if word == folded(base, fold_case=fold_case):
            num_equal += 1
        else:
            found.setdefault(word, {})[base.strip()] = None
    if not found:
        raise ValueError(
            f"Expected pairs of two different words in {file}, got {num_pairs} pairs, of which "
            f"{num_equal} have the same word on both sides."
        )
    translations = {word: tuple(others) for word, others in found.items()}
    return Dictionary(translations, num_pairs, num_equal)


def _tab_pair(line: str, place: str) -> tuple[str, str]:
    return _pair(line.rstrip("\r").split("\t"), place)


def _json_pair(line: str, place: str) -> tuple[str, str]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"Expected a JSON array of two words on {place}: {error}.") from error
    return _pair(value, place)


def _pair(value: object, place: str) -> tuple[str, str]:
    match value:
        case [str(left), str(right)] if left.strip() and right.strip():
            return left, right
    raise ValueError(f"Expected a pair of two words on {place}, got {value!r:.100}.")
