"""Which candidates become tokens: the ones that the grown model uses most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from lightning_vocab.vocabulary.unigram.scores import Scores, UnigramScores
from lightning_vocab.vocabulary.unigram.words import Fragments

_KEPT = 0.65  # share of the candidates that a round keeps
_BATCH = 20_000  # fragments


def choose(
    scores: UnigramScores,
    fragments: Fragments,
    tokens: Sequence[str],
    values: Scores,
    *,
    wanted: int,
    min_frequency: int,
) -> npt.NDArray[np.int64]:
    """Candidates to keep, ascending; fewer than wanted where no more are used often enough.

    Every round cuts the words with what is left and drops the tokens that are used least: those
    that stay take over their text, so their number only shows after the others are gone. Each round
    costs one encoding of the distinct words.

    Args:
        scores: The base's scores.
        fragments: The words of the text.
        tokens: The candidates.
        values: Their scores, ``(num_candidates,)``.
        wanted: Number of tokens to keep.
        min_frequency: Smallest number of times that a token must be used.
    """
    is_possible = np.ones(len(tokens), bool)
    last_used = np.zeros(len(tokens), np.int64)
    lengths = np.array([len(token) for token in tokens], np.int64)
    kept = np.arange(len(tokens))
    while True:
        tokenizer = scores.tokenizer([tokens[i] for i in kept.tolist()], values[kept])
        used = _uses(tokenizer, fragments, scores.num_known + len(kept))[scores.num_known :]
        last_used[kept] = used
        rare = kept[used < min_frequency]
        if len(kept) <= wanted and not len(rare):
            return kept
        if len(rare):
            # Long tokens hide the short ones in them, which may be used often without them.
            is_possible[rare[lengths[rare] >= np.median(lengths[rare])]] = False
        size = max(wanted, int(_KEPT * len(kept)))
        pool = np.flatnonzero(is_possible)
        kept = np.sort(pool[np.argsort(-last_used[pool], kind="stable")][:size])


def check_lengths(before: Tokenizer, after: Tokenizer, fragments: Fragments) -> None:
    """Make sure on the text itself that no word gets more tokens, whatever rounding did.

    Args:
        before: The base's model with the new characters.
        after: The grown model.
        fragments: The words of the text.

    Raises:
        ValueError: If a word gets more tokens; the message names it.
    """
    pairs = zip(_lengths(before, fragments), _lengths(after, fragments), strict=True)
    for start, (old, new) in zip(range(0, len(fragments.texts), _BATCH), pairs, strict=True):
        if len(longer := np.flatnonzero(new > old)):
            at = int(longer[0])
            raise ValueError(
                f"The grown tokenizer cuts {fragments.texts[start + at][:60]!r} into {new[at]} "
                f"tokens, the base into {old[at]}: the base's scores have too many digits to be "
                "summed exactly over such a long word. Break up the longest words of the text."
            )


def _uses(tokenizer: Tokenizer, fragments: Fragments, num_ids: int) -> npt.NDArray[np.int64]:
    """How often the text uses each id, ``(num_ids,)``."""
    uses = np.zeros(num_ids)
    for start, batch in _batches(fragments):
        encodings = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        lengths = [len(encoding) for encoding in encodings]
        ids = np.fromiter(chain.from_iterable(e.ids for e in encodings), np.int64)
        weights = np.repeat(fragments.counts[start : start + len(batch)], lengths)
        uses += np.bincount(ids, weights, minlength=num_ids)
    return uses.astype(np.int64)


def _lengths(tokenizer: Tokenizer, fragments: Fragments) -> Iterator[npt.NDArray[np.int64]]:
    for _, batch in _batches(fragments):
        encodings = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        yield np.array([len(encoding) for encoding in encodings])


def _batches(fragments: Fragments) -> Iterator[tuple[int, list[str]]]:
    for start in range(0, len(fragments.texts), _BATCH):
        yield start, fragments.texts[start : start + _BATCH]
