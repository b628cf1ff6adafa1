"""Scores of a grown Unigram vocabulary: every new token is reached, no text gets more tokens.

A Unigram model cuts a word into the tokens whose scores sum highest. Growth takes `MARGIN` off
every old score, and gives a new token ``p``

    score(p) = best(p) - MARGIN * (1 + rarity(p)),    0 <= rarity(p) < 1,

where ``best(p)`` is the highest sum of old scores with which the base cuts ``p`` itself. A cut with
``n`` tokens, each new one replaced by its pieces, is a cut ``q`` of the base, so its sum is at most
``old(q) - MARGIN * n``. Three things follow.

*No more tokens.* Let ``a`` be the cut that the base takes: ``old(q) <= old(a)``. It is still there,
with the sum ``old(a) - MARGIN * len(a)``. A cut with ``n > len(a)`` tokens sums to less, whatever
the margin and however close other cuts come.

*No dead token.* ``p`` against the ``m >= 2`` tokens of any other cut of its string: the first loses
less than ``2 * MARGIN``, the second at least that, and starts no higher.

*Base cuts stay.* The order of two cuts can only change where their old sums are closer than the
margin times their difference in tokens. SentencePiece stores scores in single precision, so that
scores of common size are multiples of 2**-22 and so are the differences of sums: with a margin of
2**-29 only exact ties are left, and of tied cuts the one with fewer tokens wins.

All sums are multiples of 2**-35 then, and exact in double precision up to 2**18: words of about
10,000 tokens. Scores of more digits round; the margin stays above the rounding for words of about
1,000 tokens. A score of 0 for new tokens would break the first promise at once.

An unknown character counts as one token here, with the base's score for it. A base without byte
fallback joins neighbouring unknown characters into one ``<unk>``; where they become tokens, text
that it lost is written out, in at most one token per character.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, models

from lightning_vocab.vocabulary.unigram.layout import UnigramLayout

MARGIN = 2.0**-29
"""What each token costs besides its score."""

_STEPS = 64  # of rarity: the cuts of one length through new tokens are ordered by it

Scores = npt.NDArray[np.float64]


class UnigramScores:
    """The base with its new characters, against which new tokens are calibrated.

    Args:
        layout: The base.
        characters: Characters that become tokens; they score what an unknown one does.
    """

    def __init__(self, layout: UnigramLayout, characters: Sequence[str]) -> None:
        self._unk = layout.state.model["unk_id"]
        self._tokens = [*layout.tokens, *characters]
        new = np.full(len(characters), layout.unknown_score)
        self._old = np.concatenate([layout.scores, new])

    def calibrated(self, tokens: Sequence[str], likelihoods: Scores) -> Scores:
        """Scores of new tokens, ``(num_tokens,)``.

        Args:
            tokens: Strings of known and new characters.
            likelihoods: Log-probability of each where the tokens were learned, ``(num_tokens,)``.
        """
        if not tokens:
            return np.zeros(0)
        encodings = self._model([], np.zeros(0), self._old).encode_batch(
            tokens, add_special_tokens=False
        )
        lengths = np.array([len(encoding) for encoding in encodings])
        ids = np.fromiter(chain.from_iterable(e.ids for e in encodings), np.int64)
        best = np.add.reduceat(self._old[ids], np.cumsum(lengths) - lengths)
        scores: Scores = best - MARGIN * (1 + _rarity(likelihoods))
        return scores

    def vocabulary(self, tokens: Sequence[str], scores: Scores) -> list[tuple[str, float]]:
        """The grown model's list: old tokens, new characters, new tokens.

        Args:
            tokens: The new tokens.
            scores: What `calibrated` gave for them, ``(num_tokens,)``.
        """
        all_scores = np.concatenate([self._old - MARGIN, scores]).tolist()
        return list(zip([*self._tokens, *tokens], all_scores, strict=True))

    def tokenizer(self, tokens: Sequence[str], scores: Scores) -> Tokenizer:
        """The grown model alone, for words that are normalized and cut already.

        Args:
            tokens: The new tokens; the id of the first follows the new characters.
            scores: What `calibrated` gave for them, ``(num_tokens,)``.
        """
        return self._model(tokens, scores, self._old - MARGIN)

    @property
    def num_known(self) -> int:
        """Number of old tokens and new characters."""
        return len(self._tokens)

    def _model(self, tokens: Sequence[str], scores: Scores, old: Scores) -> Tokenizer:
        values = np.concatenate([old, scores]).tolist()
        pairs = list(zip([*self._tokens, *tokens], values, strict=True))
        return Tokenizer(models.Unigram(pairs, self._unk, False))


def _rarity(likelihoods: Scores) -> Scores:
    """0 for the likeliest token up to 63/64 for the least likely, in steps of 1/64."""
    spread = np.ptp(likelihoods) or 1.0
    rarity: Scores = np.round((likelihoods.max() - likelihoods) / spread * (_STEPS - 1)) / _STEPS
    return rarity
