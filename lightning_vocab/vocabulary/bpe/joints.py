"""Where words end in a base that has no pre-tokenizer: between which two pieces."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lightning_vocab.vocabulary.bpe.layout import BLANK, BpeLayout
from lightning_vocab.vocabulary.bpe.units import CHARACTER, CODE, Flags, Units
from lightning_vocab.vocabulary.characters import DIGIT, class_table


class Joints:
    """Decides whether two neighbouring pieces may become parts of one token.

    A cut stands before a piece that starts with a blank, between pieces of different classes
    (letters with their marks, digits, blanks, other), and around digits if the base writes every
    digit alone. It depends on the two pieces only. Later merges join at the same two pieces, so no
    merge that was learned ever joins over a cut, although the grown tokenizer knows no cuts.

    Args:
        layout: A base with byte fallback.
    """

    def __init__(self, layout: BpeLayout) -> None:
        classes = class_table()
        texts = [token or " " for token in layout.tokens]
        self._first = classes[_codes([text[0] for text in texts])]
        self._last = classes[_codes([text[-1] for text in texts])]
        self._starts_blank = np.array([text[0] == BLANK for text in texts])
        self._is_blank = np.array([text == BLANK for text in texts])
        # Blanks inside or at the end of a piece: nothing may be joined to it.
        self._is_closed = np.array([BLANK in text[1:] for text in texts])
        self._classes = classes
        self._splits_digits = _splits_digits(layout, classes)

    def cuts(self, units: Units) -> Flags:
        """Whether a word starts at each unit because of the unit before it, ``(num_units,)``.

        Args:
            units: Base ids and characters, ``(num_units,)``.
        """
        is_character = units >= CHARACTER
        ids = np.where(is_character, 0, units)
        own = self._classes[np.where(is_character, units & CODE, 0)]
        first = np.where(is_character, own, self._first[ids])
        last = np.where(is_character, own, self._last[ids])
        starts_blank = ~is_character & self._starts_blank[ids]
        is_blank = ~is_character & self._is_blank[ids]
        is_closed = ~is_character & self._is_closed[ids]
        cut = np.zeros(len(units), bool)
        cut[1:] = (first[1:] != last[:-1]) & ~is_blank[:-1]
        cut[1:] |= starts_blank[1:] | is_closed[1:] | is_closed[:-1]
        if self._splits_digits:
            cut[1:] |= (first[1:] == DIGIT) | (last[:-1] == DIGIT)
        return cut


def _splits_digits(layout: BpeLayout, classes: npt.NDArray[np.uint8]) -> bool:
    """Whether no text token of the base holds two digits side by side."""
    texts = [
        token
        for token, barrier in zip(layout.tokens, layout.is_barrier, strict=True)
        if not barrier
    ]
    is_digit = classes[_codes(["\n".join(texts)])] == DIGIT
    return not bool((is_digit[1:] & is_digit[:-1]).any())


def _codes(texts: list[str]) -> npt.NDArray[np.uint32]:
    return np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32)
