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

*Unknown characters* count as one token each, at 10 less than the model's lowest score. New tokens
push that score down, so it is no constant; two cases keep the proof.

In most bases every character of a token is a token, and new tokens are made of such characters and
of new ones only. Then an unknown character is unknown in every cut of its text, and what it scores
decides nothing; nor does what a new character scores, as no old token holds it.

Some bases *hide* characters: they stand in longer tokens and are none themselves, so only some cuts
have them unknown. There no new token may score less than the lowest old one less the margin
(`UnigramScores.is_high_enough`), new characters score just that, and hidden ones stay unknown. So
the score of an unknown character is lowered by the margin like all others, and the proof counts it
as it counts any token. (Beside a lowest score of -19, a new token with ``best`` of -76 would let
``xa b c d`` win over ``x abcd``, where ``x`` is hidden: -76 over -88 instead of -31.)

Added and byte tokens hide nothing, as text that spells them rarely comes to the model. Where
normalization alone spells one, a word that holds it and an unknown character is left out of the
first promise.

A base without byte fallback joins neighbouring unknown characters into one ``<unk>``. They are the
same in every cut, unless the base hides characters: then cuts that tie can differ in them. Where
they become tokens, text that was lost is written out, in at most one token per character.
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
        characters: Characters that become tokens. They score what an unknown one does, or the
            lowest old score where the base hides characters; none of those may be among them.
    """

    def __init__(self, layout: UnigramLayout, characters: Sequence[str]) -> None:
        self._unk = layout.state.model["unk_id"]
        self._tokens = [*layout.tokens, *characters]
        is_held = layout.hides_characters
        new = np.full(len(characters), layout.lowest_score if is_held else layout.unknown_score)
        self._old = np.concatenate([layout.scores, new])
        self._floor = layout.lowest_score - MARGIN if is_held else -np.inf

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

    def is_high_enough(self, scores: Scores) -> npt.NDArray[np.bool_]:
        """Which new tokens leave the score of unknown characters as it is, ``(num_tokens,)``.

        All of them where it decides nothing.

        Args:
            scores: What `calibrated` gave for them, ``(num_tokens,)``.
        """
        return scores >= self._floor

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
