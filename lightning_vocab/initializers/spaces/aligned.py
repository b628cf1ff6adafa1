"""Two languages in one space: word vectors turned onto each other by a dictionary."""

from __future__ import annotations

import warnings
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from lightning_vocab.functional.procrustes import procrustes_rotation
from lightning_vocab.initializers.base import RowContext
from lightning_vocab.initializers.spaces.base import TokenVectors
from lightning_vocab.initializers.spaces.cache import SavedSpace, file_identity
from lightning_vocab.initializers.spaces.tokens import (
    as_base,
    cut,
    parted,
    places_by_id,
    surfaces_of,
    words_of,
)
from lightning_vocab.initializers.spaces.word_vectors import (
    WordVectors,
    check_vectors_file,
    read_bin,
    read_vec,
)

TooFew = Literal["error", "warn"]
_BLOCK_WORDS = 32_768


class AlignedSpace(SavedSpace):
    """Static word vectors of two languages, the base's turned onto that of the new tokens.

    The base's tokens get vectors from ``source``, the new tokens from ``target``. A fastText
    ``.bin`` gives a token the vector of its text, from n-grams. A ``.vec`` gives it the mean of the
    vectors of all words that contain it, alone or behind a space, weighted by frequency; such a
    file has no counts, but its words come by frequency, so the word of rank r weighs ``1 / r``. The
    source is then multiplied by the orthogonal matrix that brings the pairs of the dictionary
    closest: ``argmin_R || S R - T ||`` (Procrustes), over the pairs with both words known, each
    side as written, in lower case and in title case. Minixhofer, Paischer & Rekabsaz, "WECHSEL"
    (NAACL 2022, arXiv 2112.06598), sections 3.1 and 3.2.

    Cost: each word of a ``.vec`` is tokenised twice. Memory: both files' vectors,
    ``4 * words * width`` bytes each; ``max_words`` bounds it.

    Args:
        source: Vectors of the language that the base knows: ``.vec``, ``.vec.gz``, ``.txt``,
            ``.bin``.
        target: Vectors of the language of the new tokens, of the same width.
        pairs: A ``.tsv`` file of word pairs in UTF-8, source and target word with a tab between.
        max_words: Words read of each ``.vec``, from the most frequent; None reads all.
        too_few: What happens with fewer different pairs known than the vectors are wide, where the
            turn is not determined: ``error``, or ``warn`` and turn all the same.
        cache_dir: Folder to keep the vectors in; None keeps nothing.

    Raises:
        ValueError: If a suffix or ``too_few`` is unknown, or ``max_words`` is below 1.
        FileNotFoundError: If a file is not there.

    Example:
        >>> AlignedSpace("cc.en.300.vec", "cc.th.300.vec", "en-th.tsv")
        Traceback (most recent call last):
        FileNotFoundError: There is no file of word vectors 'cc.en.300.vec'.
    """

    def __init__(
        self,
        source: str,
        target: str,
        pairs: str,
        max_words: int | None = None,
        too_few: TooFew = "error",
        cache_dir: str | None = None,
    ) -> None:
        super().__init__(cache_dir)
        check_vectors_file(source)
        check_vectors_file(target)
        if not Path(pairs).expanduser().is_file():
            raise FileNotFoundError(f"There is no dictionary {pairs!r}.")
        if too_few not in get_args(TooFew):
            raise ValueError(f"too_few must be error or warn: got {too_few!r}.")
        if max_words is not None and max_words < 1:
            raise ValueError(f"max_words must be at least 1 word, got {max_words}.")
        self.source = source
        self.target = target
        self.pairs = pairs
        self.max_words = max_words
        self.too_few = too_few

    @override
    def identity(self, context: RowContext) -> dict[str, Any]:
        """The three files and the number of words."""
        files = [file_identity(path) for path in (self.source, self.target, self.pairs)]
        return {"files": files, "max_words": self.max_words}

    @override
    def compute(self, context: RowContext) -> TokenVectors:
        """Vectors of the tokens of both languages, in the space of the target.

        Raises:
            ImportError: If a file is a ``.bin`` and gensim is not installed.
            ValueError: If a file is damaged, widths differ, the dictionary has the same word on
                both sides everywhere, or knows too few pairs.
        """
        pairs = _read_pairs(self.pairs)
        source, target = (self._read(path) for path in (self.source, self.target))
        widths = (source.vectors.shape[1], target.vectors.shape[1])
        if widths[0] != widths[1]:
            raise ValueError(
                f"Expected word vectors of one width, got {widths[0]} in {self.source!r} and "
                f"{widths[1]} in {self.target!r}."
            )
        known = _known_pairs(pairs, source, target)
        self._check_known(len(known), len(pairs), widths[0])
        turn = procrustes_rotation(
            torch.from_numpy(source.vectors[known[:, 0]]),
            torch.from_numpy(target.vectors[known[:, 1]]),
        )
        vectors = _of_tokens(context, target, as_seen_by_base=False)
        old = _of_tokens(context, source, as_seen_by_base=True)[context.num_new :]
        vectors[context.num_new :] = old @ turn
        return parted(context, vectors, vectors.any(dim=1))

    def _check_known(self, known: int, pairs: int, width: int) -> None:
        if known >= width:
            return
        said = (
            f"Both words are known of only {known} pairs (in all casings) of the {pairs} in "
            f"{self.pairs!r}, fewer than the vectors are wide ({width}): the turn between the "
            "languages is not determined. Give a larger dictionary, or more words of the files"
        )
        if self.too_few == "error" or not known:
            raise ValueError(f"{said}, or set too_few to warn." if known else f"{said}.")
        warnings.warn(f"{said}.", stacklevel=3)

    def _read(self, path: str) -> WordVectors:
        return read_bin(path) if path.endswith(".bin") else read_vec(path, max_words=self.max_words)


def _of_tokens(context: RowContext, words: WordVectors, *, as_seen_by_base: bool) -> Tensor:
    """Vectors of new and old tokens ``(num_new + num_old, width)``; zeros where unknown."""
    if words.keyed is None:
        return _from_words(context, words, as_seen_by_base=as_seen_by_base)
    new, old = surfaces_of(context)
    return torch.from_numpy(words.of(words_of([*new, *old]))[0])


def _from_words(context: RowContext, words: WordVectors, *, as_seen_by_base: bool) -> Tensor:
    """Means of the vectors of the words that contain each token, weighted by ``1 / rank``."""
    places = places_by_id(context)
    num_tokens = context.num_new + len(context.base_ids)
    sums = torch.zeros(num_tokens, words.vectors.shape[1], dtype=torch.float64)
    totals = torch.zeros(num_tokens, dtype=torch.float64)
    for first in range(0, len(words.words), _BLOCK_WORDS):
        some = words.words[first : first + _BLOCK_WORDS]
        for form in (list(some), [f" {word}" for word in some]):
            texts = cut(context.tokenizer, form)
            if as_seen_by_base:
                texts = as_base(context, texts)[0]
            of_word = np.repeat(np.arange(len(some)), texts.lengths)
            # A word counts once for a token, however often it contains it.
            once = np.unique(of_word * len(places) + texts.ids)
            owner, word = places[once % len(places)], first + once // len(places)
            owner, word = owner[owner >= 0], word[owner >= 0]
            weights = torch.from_numpy(1.0 / (1.0 + word))
            vectors = torch.from_numpy(words.vectors[word]).double() * weights.unsqueeze(1)
            sums.index_add_(0, torch.from_numpy(owner), vectors)
            totals.index_add_(0, torch.from_numpy(owner), weights)
    # A token of no word has the total 0 and keeps its zeros.
    return (sums / totals.clamp_min(torch.finfo(torch.float64).tiny).unsqueeze(1)).float()


def _read_pairs(path: str) -> list[tuple[str, str]]:
    """Pairs of a ``.tsv`` file, without blank lines."""
    lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    pairs = []
    for number, line in enumerate(lines, start=1):
        left, tab, right = (part.strip() if part != "\t" else part for part in line.partition("\t"))
        if not line.strip():
            continue
        if not (left and tab and right):
            raise ValueError(
                f"Expected two words with a tab between in line {number} of {path!r}, got {line!r}."
            )
        pairs.append((left, right))
    if not pairs:
        raise ValueError(f"The dictionary {path!r} is empty.")
    equal = sum(left == right for left, right in pairs)
    if equal == len(pairs):
        raise ValueError(
            f"All {equal} pairs of {path!r} have the same word on both sides: expected words of "
            "two languages."
        )
    return pairs


def _known_pairs(
    pairs: list[tuple[str, str]], source: WordVectors, target: WordVectors
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Places of the words of all known pairs in their files, ``(known, 2)``, each once."""
    of_source = {word: place for place, word in enumerate(source.words)}
    of_target = {word: place for place, word in enumerate(target.words)}
    found = {
        (of_source[left], of_target[right]): None
        for pair in pairs
        for left, right in product(*({word, word.lower(), word.title()} for word in pair))
        if left in of_source and right in of_target
    }
    return np.array(sorted(found), np.int64).reshape(-1, 2)
