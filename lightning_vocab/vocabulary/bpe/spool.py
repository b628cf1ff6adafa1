"""Words of units on disk: the corpus is encoded once and read as often as training needs it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from lightning_vocab.vocabulary.bpe.units import (
    CHARACTER,
    CODE,
    END,
    FIRST_PRIVATE,
    SEPARATOR,
    Units,
)
from lightning_vocab.vocabulary.characters import NUM_CODE_POINTS

_BLOCK = 4096  # units; longer strings make the trainer's pre-tokenizer slower


class Spool:
    """A temporary file of words, four bytes a unit; removed when the context ends.

    It is about as large as the text, and lies where `tempfile` puts it (``TMPDIR``).
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="lightning_vocab_")  # noqa: SIM115

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, words: Units) -> None:
        """Append words.

        Args:
            words: Units, each word followed by `END`.
        """
        self._file.write(words.tobytes())

    def strings(self, num_ids: int, characters: npt.NDArray[np.int64]) -> Iterator[str]:
        """The words as strings with one private code point a unit and a separator between words.

        Args:
            num_ids: Number of base ids; the characters' units follow them.
            characters: Code points that become units; all others end a word.
        """
        unit_of = np.full(NUM_CODE_POINTS, -1, np.int64)
        unit_of[characters] = num_ids + np.arange(len(characters))
        for words in self._blocks():
            units = words.astype(np.int64)
            is_character = (words >= CHARACTER) & (words != END)
            units[is_character] = unit_of[words[is_character] & CODE]
            units[words == END] = -1
            codes = np.where(units < 0, ord(SEPARATOR), units + FIRST_PRIVATE)
            yield codes.astype(np.uint32).tobytes().decode("utf-32-le")

    def _blocks(self) -> Iterator[Units]:
        """Blocks of whole words."""
        self._file.seek(0)
        rest = np.zeros(0, np.uint32)
        while data := self._file.read(4 * _BLOCK):
            block = np.concatenate([rest, np.frombuffer(data, np.uint32)])
            ends = np.flatnonzero(block == END)
            whole = int(ends[-1]) + 1 if len(ends) else 0
            rest = block[whole:]
            if whole:
                yield block[:whole]
