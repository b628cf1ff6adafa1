"""A Unigram tokenizer with tokens appended to its list."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tokenizers import Tokenizer

from lightning_vocab.vocabulary.backend_state import BackendState, read_state, reload_with
from lightning_vocab.vocabulary.collector import collector_paused
from lightning_vocab.vocabulary.fingerprint import backend


def grow_unigram(base: BackendState, vocabulary: Sequence[tuple[str, float]]) -> BackendState:
    """The base with another list of tokens and scores.

    Args:
        base: A Unigram tokenizer.
        vocabulary: Token and score of every id: the base's ids first.

    Raises:
        ValueError: If the base's decoder makes other text of a new token than of its pieces.
    """
    with collector_paused():
        model = {**base.model, "vocab": [list(pair) for pair in vocabulary]}
        text = json.dumps({**base.data, "model": model}, ensure_ascii=False, separators=(",", ":"))
    grown = read_state(reload_with(base.tokenizer, text))
    new = [token for token, _ in vocabulary[base.num_ids :]]
    _check_decoding(base, backend(grown.tokenizer), new)
    return grown


def _check_decoding(base: BackendState, grown: Tokenizer, tokens: Sequence[str]) -> None:
    """Compare each token with its pieces, at the front of a text and inside it.

    What the base loses has no text to compare with.
    """
    unk = base.model["unk_id"]
    cut = backend(base.tokenizer).model.tokenize
    pieces = [(token, [piece.id for piece in cut(token)]) for token in tokens]
    known = [(token, ids) for token, ids in pieces if unk not in ids]
    letter = next((i for i, (token, _) in enumerate(base.model["vocab"]) if len(token) == 1), unk)
    ids: dict[str, int] = grown.get_vocab()
    for front in ([], [letter]):
        expected = _decoded(grown, [[*front, *cut_ids] for _, cut_ids in known])
        whole = [[*front, ids[token]] for token, _ in known]
        for (token, _), old, new in zip(known, expected, _decoded(grown, whole), strict=True):
            if old != new:
                raise ValueError(
                    f"New token {token!r} would be decoded as {new!r}, its pieces as {old!r}: the "
                    "base's decoder does not read a longer token as the text of its pieces, so "
                    "this tokenizer cannot be grown without changing what it writes."
                )


def _decoded(tokenizer: Tokenizer, rows: list[list[int]]) -> list[str]:
    found: list[str] = tokenizer.decode_batch(rows, skip_special_tokens=False)
    return found
