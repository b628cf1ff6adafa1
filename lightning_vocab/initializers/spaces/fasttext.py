"""Token vectors of fastText: trained on the text that the new tokens are for, or from a file."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import torch
from typing_extensions import override

from lightning_vocab.initializers.base import RowContext
from lightning_vocab.initializers.spaces.base import TokenVectors
from lightning_vocab.initializers.spaces.cache import SavedSpace, file_identity
from lightning_vocab.initializers.spaces.tokens import (
    check_files,
    cut_files,
    parted,
    surfaces_of,
    words_of,
)
from lightning_vocab.initializers.spaces.word_vectors import (
    WordVectors,
    check_vectors_file,
    fasttext_library,
    read_bin,
    read_vec,
)

Names = Literal["token", "surface"]
_LONGEST_SENTENCE = 10_000  # gensim leaves out what a sentence has beyond


class FastTextSpace(SavedSpace):
    """fastText vectors whose words are tokens: trained on tokenised text, or read from a file.

    Trained (``corpus``): the text is cut by the grown tokenizer and CBOW with negative sampling is
    trained on the tokens as the vocabulary spells them (``Ġthe``), as "FOCUS" does (Dobler & de
    Melo, EMNLP 2023), with the settings of its code: width 100, 3 epochs, tokens that occur 10
    times, 10 negatives; and fastText's own for the rest: window 5, n-grams of 3 to 6 characters in
    2 million buckets, rate 0.05, sampling at 1e-4. A token that is rarer is unknown. One thread
    and a seed, so the same text gives the same vectors.

    From a file (``vectors``): ``.vec`` knows the tokens that are words of it; fastText's ``.bin``
    has n-grams and so knows nearly all whole texts.

    Cost: one core, some 300,000 tokens of the text a second in each epoch. Memory: 8 bytes for each
    token of the corpus and ``4 * width`` for each bucket (800 MB by default; set ``buckets``
    lower for a small corpus); for a file what is kept of it, and for ``.bin`` all of it.

    Args:
        corpus: ``.txt`` (a line is a document) or ``.jsonl`` files to train on.
        vectors: A ``.vec``, ``.vec.gz``, ``.txt`` or ``.bin`` file to read instead.
        text_field: Field of a JSON line that holds the text.
        names: How tokens are looked up in a file: ``token`` as the vocabulary spells them, or
            ``surface`` as text without the spaces around it, as in public files.
        width: Width of trained vectors.
        epochs: Passes over the text.
        min_count: Occurrences that a token needs.
        negative: Negatives for each token.
        buckets: Buckets of n-grams; 0 trains without n-grams.
        seed: Seed of the training.
        cache_dir: Folder to keep the vectors in; None keeps nothing.

    Raises:
        ValueError: If not exactly one of ``corpus`` and ``vectors`` is given, or a value is wrong.
        FileNotFoundError: If a file is not there.

    Example:
        >>> FastTextSpace(vectors="cc.th.300.vec")
        Traceback (most recent call last):
        FileNotFoundError: There is no file of word vectors 'cc.th.300.vec'.
    """

    def __init__(
        self,
        corpus: str | list[str] | None = None,
        vectors: str | None = None,
        text_field: str = "text",
        names: Names = "surface",
        width: int = 100,
        epochs: int = 3,
        min_count: int = 10,
        negative: int = 10,
        buckets: int = 2_000_000,
        seed: int = 0,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__(cache_dir)
        if (corpus is None) == (vectors is None):
            raise ValueError("Give FastTextSpace either a corpus to train on or a vectors file.")
        if names not in get_args(Names):
            raise ValueError(f"names must be token or surface: got {names!r}.")
        if min(width, epochs, min_count, negative) < 1 or buckets < 0:
            raise ValueError(
                "width, epochs, min_count and negative must be at least 1 and buckets at least 0: "
                f"got {width}, {epochs}, {min_count}, {negative} and {buckets}."
            )
        self.corpus = [corpus] if isinstance(corpus, str) else corpus
        if self.corpus is not None:
            check_files(self.corpus)
        if vectors is not None:
            check_vectors_file(vectors)
        self.path = vectors
        self.text_field = text_field
        self.names = names
        self.training = {
            "vector_size": width,
            "epochs": epochs,
            "min_count": min_count,
            "negative": negative,
            "bucket": buckets,
            "max_n": 6 if buckets else 0,
            "seed": seed,
        }

    @override
    def identity(self, context: RowContext) -> dict[str, Any]:
        """The arguments and the files."""
        files = self.corpus or [self.path or ""]
        settings = self.training if self.corpus else {"names": self.names}
        told = [file_identity(path) for path in files]
        return {"files": told, "text_field": self.text_field, **settings}

    @override
    def compute(self, context: RowContext) -> TokenVectors:
        """Vectors of the tokens that the corpus or the file knows.

        Raises:
            ImportError: If gensim is needed and not installed.
            ValueError: If no token of the corpus is frequent enough, or the file is damaged.
        """
        names = self._names(context)
        if self.path is None:
            space = self._trained(context)
        elif self.path.endswith(".bin"):
            space = read_bin(self.path)
        else:
            space = read_vec(self.path, {name for name in names if name is not None})
        vectors, found = space.of(names)
        return parted(context, torch.from_numpy(vectors), torch.from_numpy(found))

    def _names(self, context: RowContext) -> list[str | None]:
        if self.corpus is None and self.names == "surface":
            new, old = surfaces_of(context)
            return words_of([*new, *old])
        spelled = context.tokenizer.convert_ids_to_tokens(context.base_ids.tolist())
        return [*(token.token for token in context.expansion.tokens), *spelled]

    def _trained(self, context: RowContext) -> WordVectors:
        library = fasttext_library()
        assert self.corpus is not None, "compute has seen to it"
        sentences = _Sentences(context, self.corpus, self.text_field)
        needed = int(self.training["min_count"])
        most = int(np.bincount(sentences.ids).max(initial=0))
        if most < needed:
            raise ValueError(
                f"No token occurs {needed} times in {self.corpus}, the most frequent one {most} "
                "times: give more text, or lower min_count."
            )
        model = library.FastText(
            sentences,
            sg=0,
            window=5,
            alpha=0.05,
            sample=1e-4,
            min_n=3,
            workers=1,  # two threads would change the order of the updates
            **self.training,
        )
        return WordVectors(model.wv.index_to_key, np.asarray(model.wv.vectors, np.float32))


class _Sentences:
    """Documents as lists of tokens, again and again, at most 10,000 tokens long."""

    def __init__(self, context: RowContext, paths: list[str], text_field: str) -> None:
        parts = list(cut_files(context, paths, text_field))
        self.ids = np.concatenate([part.ids for part in parts])
        ends = np.cumsum(np.concatenate([part.lengths for part in parts]))
        limits = np.arange(0, len(self.ids), _LONGEST_SENTENCE)
        self._limits = np.union1d(np.append(ends, 0), limits)
        height = int(self.ids.max(initial=0)) + 1
        spelled = context.tokenizer.convert_ids_to_tokens(list(range(height)))
        self._spelled = np.array(spelled, dtype=object)

    def __iter__(self) -> Any:
        for first, end in zip(self._limits[:-1], self._limits[1:], strict=True):
            yield self._spelled[self.ids[first:end]].tolist()
