"""A BPE tokenizer with characters and merges appended."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tokenizers import Tokenizer

from lightning_vocab.vocabulary.backend_state import (
    BackendState,
    read_state,
    reload_with,
)
from lightning_vocab.vocabulary.bpe.layout import BLANK
from lightning_vocab.vocabulary.bpe.merge_training import Merge
from lightning_vocab.vocabulary.collector import collector_paused
from lightning_vocab.vocabulary.fingerprint import backend, canonical_text


def grow(
    base: BackendState,
    characters: Sequence[str],
    merges: Sequence[Merge],
    *,
    ids: Sequence[int] | None = None,
) -> BackendState:
    """The base with new tokens: the characters, then the merges' tokens.

    Args:
        base: A BPE tokenizer.
        characters: Single characters that the base vocabulary lacks.
        merges: Merges to append, in order of rank; no token of theirs is in the base.
        ids: Free id of each new token. If not given, they follow the base's highest id.

    Raises:
        ValueError: If an added token of the base could be reached by text once it stands in the
            model's vocabulary.
    """
    vocab = filled_vocabulary(base)
    new = [*characters, *(left + right for left, right in merges)]
    if ids is None:
        ids = range(base.num_ids, base.num_ids + len(new))
    vocab.update(zip(new, ids, strict=True))
    with collector_paused():
        data = {
            **base.data,
            "model": {
                **base.model,
                "vocab": dict(sorted(vocab.items(), key=lambda item: item[1])),
                "merges": [*base.model["merges"], *map(list, merges)],
            },
        }
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    grown = reload_with(base.tokenizer, text)
    # Parsing nine megabytes again is only needed where the class wrote its backend differently.
    is_same = canonical_text(backend(grown)) == text
    return BackendState(grown, text, data) if is_same else read_state(grown)


def filled_vocabulary(base: BackendState) -> dict[str, int]:
    """The model's vocabulary with the added tokens in it, at their ids.

    Added tokens outside the model get their ids from its size when a tokenizer is loaded, so the
    new tokens would push them away. Inside it they keep their ids; merges never lead to them.

    Args:
        base: A BPE tokenizer.

    Raises:
        ValueError: If text could reach one of them there.
    """
    vocab: dict[str, int] = dict(base.model["vocab"])
    tokenizer = backend(base.tokenizer)
    for item in base.added_tokens:
        if item["content"] in vocab:
            continue
        if (item["special"] or item["single_word"]) and _is_reachable(base, tokenizer, item):
            raise ValueError(
                f"Added token {item['content']!r} cannot keep its id: inside the model's "
                "vocabulary plain text would reach it without a merge."
            )
        vocab[item["content"]] = item["id"]
    return vocab


def _is_reachable(base: BackendState, tokenizer: Tokenizer, item: dict[str, object]) -> bool:
    """Whether the model would find the token without merges where it is not matched beforehand."""
    content = str(item["content"])
    if len(content) > 1 and not base.model["ignore_merges"]:
        return False
    if tokenizer.pre_tokenizer is None:
        return True
    words = [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(content)]
    return [word.removeprefix(BLANK) for word in words] == [content]
