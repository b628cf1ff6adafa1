"""What growth must not join, so that protected text is cut as before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lightning_vocab.vocabulary.backend_state import BackendState
from lightning_vocab.vocabulary.bpe.layout import BpeLayout
from lightning_vocab.vocabulary.bpe.segmentation import Segmenter
from lightning_vocab.vocabulary.bpe.units import CHARACTER, CODE, Units
from lightning_vocab.vocabulary.characters import NUM_CODE_POINTS
from lightning_vocab.vocabulary.corpus import batches
from lightning_vocab.vocabulary.fingerprint import backend, without_limits


@dataclass(frozen=True)
class ProtectedUnits:
    """What stands side by side in protected text once the base has cut it.

    A new merge of two base tokens joins them wherever they are neighbours, and nowhere else. A
    merge with a new token has nothing to join before such a merge has made that token, or before a
    character has become one. So protected text stays as it is if, and only if, none of its
    neighbours is a new merge and none of the characters that it spells in bytes is a new token.

    Args:
        layout: The base.
        pairs: Neighbouring base ids, left one in the upper half, ascending, ``(num_pairs,)``.
        characters: Whether each code point stands there and is spelled in byte tokens,
            ``(0x110000,)``.
    """

    layout: BpeLayout
    pairs: npt.NDArray[np.uint64]
    characters: npt.NDArray[np.bool_]

    @classmethod
    def of(
        cls, layout: BpeLayout, documents: Iterable[str], taken: Mapping[int, str] | None = None
    ) -> ProtectedUnits:
        """The neighbours in documents: 8 bytes for each different pair.

        Args:
            layout: The base.
            documents: The protected text, read once.
            taken: Spellings, by id, of tokens of the base that the grown tokenizer will not have.

        Raises:
            ValueError: If there is no text, or a document holds a lone surrogate or one of these
                spellings.
        """
        segmenter = Segmenter(layout)
        pairs = np.zeros(0, np.uint64)
        characters = np.zeros(NUM_CODE_POINTS, bool)
        with without_limits(backend(layout.state.tokenizer)):
            for batch in batches(documents):
                units, starts = segmenter.cut(batch)
                is_id = units < CHARACTER
                _check_kept(units[is_id], taken or {})
                characters[units[~is_id] & CODE] = True
                are_joined = is_id[:-1] & is_id[1:] & ~starts[1:]
                left, right = (part[are_joined] for part in (units[:-1], units[1:]))
                pairs = np.union1d(pairs, _keys(left, right))
        return cls(layout, pairs, characters)

    def has(self, *parts: str) -> bool:
        """Whether two tokens are neighbours somewhere, or one character stands in byte tokens.

        Args:
            parts: Two tokens, as the vocabulary spells them; or a character. A new token has no
                neighbours.
        """
        if len(parts) == 1:
            return bool(self.characters[ord(parts[0])])
        ids = [self.layout.state.ids.get(token) for token in parts]
        if None in ids or not len(self.pairs):
            return False
        (key,) = _keys(np.array(ids[:1], np.uint32), np.array(ids[1:], np.uint32))
        at = np.searchsorted(self.pairs, key)
        return bool(at < len(self.pairs) and self.pairs[at] == key)


def check_unchanged(base: BackendState, grown: BackendState, documents: Iterable[str]) -> None:
    """Make sure that protected text is cut as before; costs two encodings of it, batch by batch.

    Args:
        base: State of the base tokenizer.
        grown: State of the grown tokenizer.
        documents: The protected text, read once.

    Raises:
        ValueError: If a document is cut otherwise; the message shows where.
    """
    old, new = backend(base.tokenizer), backend(grown.tokenizer)
    with without_limits(old):
        for batch in batches(documents):
            before, after = (each.encode_batch_fast(batch) for each in (old, new))
            for text, one, other in zip(batch, before, after, strict=True):
                if one.ids != other.ids:
                    was = [old.id_to_token(i) for i in one.ids]
                    is_now = [new.id_to_token(i) for i in other.ids]
                    raise ValueError(_difference(text, was, is_now))


def _difference(text: str, was: Sequence[str | None], is_now: Sequence[str | None]) -> str:
    pairs = enumerate(zip(was, is_now, strict=False))
    at = next((k for k, (old, new) in pairs if old != new), min(len(was), len(is_now)))
    return (
        f"Protected text must be cut as before, but in {text[:60]!r} token {at} and those behind "
        f"it were {was[at : at + 5]} and became {is_now[at : at + 5]}. Does it hold the text of an "
        "added token that was given another meaning? Take that out of protected."
    )


def _check_kept(ids: Units, taken: Mapping[int, str]) -> None:
    lost = ids[np.isin(ids, np.fromiter(taken, np.uint32, len(taken)))]
    if len(lost):
        raise ValueError(
            f"Protected text holds {taken[int(lost[0])]!r}, the spelling of a slot that a new "
            f"token will take (id {lost[0]}), so it cannot be cut as before. Take it out of the "
            "protected text, or choose other slots with slot_patterns."
        )


def _keys(left: npt.NDArray[np.uint32], right: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    return (left.astype(np.uint64) << np.uint64(32)) | right.astype(np.uint64)
