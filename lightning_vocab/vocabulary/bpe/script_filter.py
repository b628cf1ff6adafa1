"""Keeps the words of some scripts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lightning_vocab.vocabulary.bpe.layout import BpeLayout
from lightning_vocab.vocabulary.bpe.units import CHARACTER, CODE, Flags, Units
from lightning_vocab.vocabulary.characters import FOREIGN, WANTED, script_table


class ScriptFilter:
    """Keeps words with a character of the scripts and without a letter of any other script.

    Args:
        layout: The base.
        scripts: Names of Unicode scripts.
    """

    def __init__(self, layout: BpeLayout, scripts: tuple[str, ...]) -> None:
        self._table = script_table(scripts)
        texts = [_utf8(layout, i) for i in range(len(layout.tokens))]
        self._bytes = np.frombuffer(b"".join(texts), np.uint8)
        self._length = np.array([len(text) for text in texts], np.int64)
        self._offset = np.cumsum(self._length) - self._length

    def keeps(self, units: Units, starts: Flags) -> Flags:
        """Whether each unit stands in a word that is kept, ``(num_units,)``.

        Args:
            units: Base ids and characters, barriers removed, ``(num_units,)``.
            starts: Where words start, ``(num_units,)``.
        """
        if not len(units):
            return np.zeros(0, bool)
        word = np.cumsum(starts) - 1
        marks = np.zeros((2, int(word[-1]) + 1), bool)
        is_character = units >= CHARACTER
        self._mark(marks, word[is_character], units[is_character] & CODE)
        self._mark(marks, *self._decoded(word[~is_character], units[~is_character]))
        kept: Flags = (marks[0] & ~marks[1])[word]
        return kept

    def _mark(
        self,
        marks: Flags,
        word: npt.NDArray[np.int64],
        codes: Units,
    ) -> None:
        found = self._table[codes]
        marks[0, word[found == WANTED]] = True
        marks[1, word[found == FOREIGN]] = True

    def _decoded(
        self, word: npt.NDArray[np.int64], ids: Units
    ) -> tuple[npt.NDArray[np.int64], Units]:
        """Word and code point of every character: tokens may end inside one, words never do."""
        length = self._length[ids]
        within = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
        data = self._bytes[np.repeat(self._offset[ids], length) + within]
        is_start = data & 0xC0 != 0x80
        codes = np.frombuffer(data.tobytes().decode().encode("utf-32-le"), np.uint32)
        return np.repeat(word, length)[is_start], codes


def _utf8(layout: BpeLayout, i: int) -> bytes:
    return b"" if layout.is_barrier[i] else layout.utf8(layout.tokens[i])
