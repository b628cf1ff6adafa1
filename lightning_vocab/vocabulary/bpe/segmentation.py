"""Texts as words of units: what the base tokenizer makes of them, ready for continued training.

Words are what merges may not cross. Everything runs on whole batches of texts, so that Python stays
out of the loop over tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from lightning_vocab.vocabulary.bpe.joints import Joints
from lightning_vocab.vocabulary.bpe.layout import BpeLayout
from lightning_vocab.vocabulary.bpe.script_filter import ScriptFilter
from lightning_vocab.vocabulary.bpe.units import CHARACTER, CODE, END, Flags, Units
from lightning_vocab.vocabulary.characters import NUM_CODE_POINTS
from lightning_vocab.vocabulary.fingerprint import backend


class Segmenter:
    """Cuts batches of texts into words of units.

    Args:
        layout: The base.
        scripts: Names of the scripts whose words are kept; empty for all words.
    """

    def __init__(self, layout: BpeLayout, scripts: tuple[str, ...] = ()) -> None:
        self._layout = layout
        self._tokenizer = backend(layout.state.tokenizer)
        self._joints = Joints(layout) if layout.kind == "byte-fallback" else None
        self._filter = ScriptFilter(layout, scripts) if scripts else None
        self.character_counts = np.zeros(NUM_CODE_POINTS, np.int64)
        self.used = np.zeros(layout.state.num_ids, bool)

    def words(self, texts: Sequence[str]) -> Units:
        """Words of two and more units, each followed by `END`: the only ones that have a pair.

        Characters that the base spells in bytes are counted on the way, in shorter words too.

        Args:
            texts: A batch of documents.
        """
        units, starts = self.cut(texts)
        if self._joints is not None:
            starts |= self._joints.cuts(units)
        units, starts = self._without_barriers(units, starts)
        if self._filter is not None:
            kept = self._filter.keeps(units, starts)
            units, starts = units[kept], starts[kept]
        is_character = units >= CHARACTER
        codes, counts = np.unique(units[is_character] & CODE, return_counts=True)
        self.character_counts[codes] += counts
        units, starts = _longer_words(units, starts)
        self.used[units[units < CHARACTER]] = True
        return _with_ends(units, starts)

    def cut(self, texts: Sequence[str]) -> tuple[Units, Flags]:
        """What the base makes of texts: all units, and where no merge can join, ``(num_units,)``.

        Args:
            texts: A batch of documents.
        """
        units, starts = self._segmented(texts)
        if self._layout.kind == "byte-fallback":
            return _with_characters(units, starts, self._layout.byte_of)
        return units, starts

    def _segmented(self, texts: Sequence[str]) -> tuple[Units, Flags]:
        """Ids of all texts behind each other and where words start, both ``(num_tokens,)``."""
        # Only `encode_batch` numbers the words; it also tracks offsets, which costs time.
        needs_words = self._layout.cuts_words
        encode = self._tokenizer.encode_batch if needs_words else self._tokenizer.encode_batch_fast
        encodings = encode(texts, add_special_tokens=False)
        lengths = np.array([len(encoding) for encoding in encodings])
        total = int(lengths.sum())
        ids = np.fromiter(chain.from_iterable(e.ids for e in encodings), np.uint32, total)
        starts = np.zeros(total, bool)
        starts[(np.cumsum(lengths) - lengths)[lengths > 0]] = True
        if needs_words:
            numbers = chain.from_iterable(e.word_ids for e in encodings)
            word = np.fromiter(numbers, np.int64, total)
            starts[1:] |= word[1:] != word[:-1]
        return ids, starts

    def _without_barriers(self, units: Units, starts: Flags) -> tuple[Units, Flags]:
        is_id = units < CHARACTER
        barrier = is_id & self._layout.is_barrier[np.where(is_id, units, 0)]
        starts = starts.copy()
        starts[1:] |= barrier[:-1]
        return units[~barrier], starts[~barrier]


def _with_characters(
    ids: Units, starts: Flags, byte_of: npt.NDArray[np.int16]
) -> tuple[Units, Flags]:
    """Each run of byte tokens that spells one character as one unit; ASCII bytes stay byte tokens.

    The model writes whole characters into bytes, so a lead byte always has its continuation bytes
    behind it.
    """
    byte = byte_of[ids].astype(np.int64)
    lead = np.flatnonzero(byte >= 0xC0)
    length = 2 + (byte[lead] >= 0xE0) + (byte[lead] >= 0xF0)
    code = byte[lead] & (0x7F >> length)
    for k in range(1, 4):
        reaches = length > k
        code[reaches] = (code[reaches] << 6) | (byte[lead[reaches] + k] & 0x3F)
    units = ids.copy()
    units[lead] = code.astype(np.uint32) | CHARACTER
    is_kept = (byte & 0xC0 != 0x80) | (byte < 0)
    return units[is_kept], starts[is_kept].copy()


def _longer_words(units: Units, starts: Flags) -> tuple[Units, Flags]:
    """Without words of one unit."""
    ends = np.append(starts[1:], True)
    kept = ~(starts & ends)
    return units[kept], starts[kept]


def _with_ends(units: Units, starts: Flags) -> Units:
    if not len(units):
        return units
    result = np.full(len(units) + int(starts.sum()), END, np.uint32)
    result[np.arange(len(units)) + np.cumsum(starts) - 1] = units
    return result
