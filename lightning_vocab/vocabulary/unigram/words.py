"""The words of a corpus with their counts, cut as the base cuts them before its model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, compress
from operator import not_

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from lightning_vocab.vocabulary.backend_state import BackendState
from lightning_vocab.vocabulary.bpe.layout import BLANK
from lightning_vocab.vocabulary.characters import (
    FOREIGN,
    NUM_CODE_POINTS,
    WANTED,
    script_table,
)

_END = "\ud800"
"""A lone surrogate: no text of the tokenizers library holds one."""


@dataclass(frozen=True)
class Fragments:
    """Stretches of words that the grown model writes without an unknown character.

    Args:
        texts: The stretches, of two and more characters; one may occur more than once.
        counts: How often the text holds each, ``(num_fragments,)``.
    """

    texts: list[str]
    counts: npt.NDArray[np.int64]


class WordCounter:
    """Counts the words that reach the base's model: normalized, cut, without added tokens.

    Memory holds one count for each distinct word. A word that holds blanks, of a base that cuts no
    words, is counted as the words between them.

    Args:
        state: The base.
    """

    def __init__(self, state: BackendState) -> None:
        # A model that knows nothing hands out each word whole, as one unknown token of id 0.
        nothing = {"type": "Unigram", "unk_id": 0, "vocab": [["\U0010ffff", 0.0]]}
        model = {**nothing, "byte_fallback": False}
        data = {**state.data, "model": model, "post_processor": None}
        self._cutter = Tokenizer.from_str(json.dumps(data))
        self._counts: Counter[str] = Counter()

    def add(self, texts: Sequence[str]) -> None:
        """Count the words of a batch of documents.

        Args:
            texts: The documents.
        """
        encodings = self._cutter.encode_batch(texts, add_special_tokens=False)
        ids = chain.from_iterable(encoding.ids for encoding in encodings)
        tokens = chain.from_iterable(encoding.tokens for encoding in encodings)
        joined = _END.join(compress(tokens, map(not_, ids)))
        self._counts.update(joined.replace(BLANK, _END + BLANK).split(_END))

    def words(self, scripts: tuple[str, ...]) -> Words:
        """The words counted so far.

        Args:
            scripts: Scripts whose words are kept: words with a character of them and no letter of
                another. All words if empty.
        """
        del self._counts[""]
        return Words(list(self._counts), np.fromiter(self._counts.values(), np.int64), scripts)


class Words:
    """Distinct words and their counts, as one array of code points.

    Args:
        words: The words.
        counts: How often each occurs, ``(num_words,)``.
        scripts: Scripts whose words are kept, all if empty.
    """

    def __init__(
        self, words: Sequence[str], counts: npt.NDArray[np.int64], scripts: tuple[str, ...]
    ) -> None:
        joined = _END.join([*words, ""])
        self._codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
        is_end = self._codes == ord(_END)
        self._word = np.cumsum(is_end) - is_end
        self._counts = counts
        if scripts:
            marks = script_table(scripts)[self._codes]
            has = [np.zeros(len(words), bool) for _ in range(2)]
            for found, mark in zip(has, (WANTED, FOREIGN), strict=True):
                found[self._word[marks == mark]] = True
            self._counts = np.where(has[0] & ~has[1], counts, 0)

    def characters(self) -> npt.NDArray[np.int64]:
        """How often each code point occurs in the words that are kept, ``(0x110000,)``."""
        is_end = self._codes == ord(_END)
        codes, word = self._codes[~is_end], self._word[~is_end]
        counts = np.bincount(codes, self._counts[word], minlength=NUM_CODE_POINTS)
        return counts.astype(np.int64)

    def fragments(self, is_writable: npt.NDArray[np.bool_]) -> Fragments:
        """The words, cut at every character that the grown model does not know.

        Args:
            is_writable: Which code points are a token of their own, ``(0x110000,)``.
        """
        is_end = ~is_writable[self._codes]  # the ends of words among them
        codes = np.where(is_end, ord(_END), self._codes).astype(np.uint32)
        texts = codes.tobytes().decode("utf-32-le", "surrogatepass").split(_END)[:-1]
        ends = np.flatnonzero(is_end)
        counts = self._counts[self._word[ends]]
        is_kept = (np.diff(ends, prepend=-1) > 2) & (counts > 0)
        return Fragments(list(compress(texts, is_kept)), counts[is_kept])
