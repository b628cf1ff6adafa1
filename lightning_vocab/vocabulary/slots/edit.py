"""A tokenizer whose slots have another token, or none any more."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from lightning_vocab.vocabulary.backend_state import BackendState, read_state, reload_with
from lightning_vocab.vocabulary.bpe.growth import filled_vocabulary
from lightning_vocab.vocabulary.collector import collector_paused
from lightning_vocab.vocabulary.slots.slots import Slot

_PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def without_slots(base: BackendState, slots: Sequence[Slot]) -> BackendState:
    """The base with the slots taken out of its added tokens and of its model's vocabulary.

    The result is there to be edited further: its ``text`` is the base's still.

    Args:
        base: State of a tokenizer whose model's vocabulary maps tokens to ids.
        slots: Slots of this base.
    """
    names: dict[str, str | None] = {slot.token: None for slot in slots if slot.token is not None}
    if not names:
        return base
    data = {
        **base.data,
        "added_tokens": [item for item in base.added_tokens if item["content"] not in names],
        "model": {
            **base.model,
            "vocab": {token: i for token, i in base.model["vocab"].items() if token not in names},
        },
    }
    return replace(base, tokenizer=_following(base.tokenizer, names), data=data)


def rename_slots(
    base: BackendState, slots: Sequence[Slot], tokens: Sequence[str], *, special: bool
) -> BackendState:
    """The base with a protocol token in each slot, as it is when it was saved and loaded again.

    A slot that is an added token keeps its settings and changes its spelling. Any other becomes an
    added token that is matched in the raw text.

    Args:
        base: State of the base tokenizer.
        slots: The slots to fill.
        tokens: The new token of each slot.
        special: Whether tokens in rows that had no added token are special.

    Raises:
        ValueError: If the tokenizers library or the tokenizer's class would not keep an id, or
            brings an old spelling back.
    """
    fresh = {slot.id: token for slot, token in zip(slots, tokens, strict=True)}
    names: dict[str, str | None] = {
        slot.token: token
        for slot, token in zip(slots, tokens, strict=True)
        if slot.token is not None
    }
    items = {item["id"]: item for item in base.added_tokens}
    for i, token in fresh.items():
        old = items.get(i, {"id": i, **_PLAIN, "special": special})
        items[i] = {**old, "content": token}
    with collector_paused():
        data = {
            **base.data,
            "added_tokens": sorted(items.values(), key=lambda item: int(item["id"])),
            "model": {**base.model, "vocab": _renamed(base.model["vocab"], names)},
        }
    edited = replace(base, tokenizer=_following(base.tokenizer, names), data=data)
    grown = read_state(reload_with(edited.tokenizer, _with_ids_kept(base, edited, slots)))
    check_gone(grown, slots)
    _check_kept(grown, fresh)
    return grown


def check_gone(grown: BackendState, slots: Sequence[Slot]) -> None:
    """Make sure that no slot is known by its old spelling any more.

    Args:
        grown: State of a tokenizer that was loaded with the slots filled.
        slots: The slots that were filled.

    Raises:
        ValueError: If the tokenizer's class adds an old spelling anew when it is loaded.
    """
    left = {*grown.ids, *map(str, grown.tokenizer.all_special_tokens)}
    if back := [slot.token for slot in slots if slot.token in left]:
        raise ValueError(
            f"{type(grown.tokenizer).__name__} makes {len(back)} reserved tokens anew whenever it "
            f"is loaded, such as {back[0]!r}: they cannot be reused. Choose other slots by pattern "
            "or ids."
        )


def _check_kept(grown: BackendState, fresh: Mapping[int, str]) -> None:
    for i, token in fresh.items():
        if (found := grown.ids.get(token)) != i:
            raise ValueError(
                f"{token!r} got id {found} instead of {i} when the tokenizer was loaded: this kind "
                f"of tokenizer ({grown.model['type']}) only takes padded rows that follow its last "
                "token without a gap. Choose other slots."
            )


def _following(
    tokenizer: PreTrainedTokenizerBase, names: Mapping[str, str | None]
) -> PreTrainedTokenizerBase:
    """A shallow copy of the wrapper; its own list of special tokens takes the new names over."""
    twin = copy.copy(tokenizer)
    extra = [str(token) for token in tokenizer.extra_special_tokens]
    if not set(extra).isdisjoint(names):
        followed = [names.get(token, token) for token in extra]
        twin.extra_special_tokens = [token for token in followed if token is not None]
    return twin


def _renamed(vocab: Any, names: Mapping[str, str | None]) -> Any:
    if not names:
        return vocab
    # A Unigram vocabulary is a list of (token, score) in order of id, all others are mappings.
    if isinstance(vocab, list):
        return [[names.get(token, token), score] for token, score in vocab]
    return {names.get(token, token): i for token, i in vocab.items()}


def _with_ids_kept(base: BackendState, edited: BackendState, slots: Sequence[Slot]) -> str:
    """JSON text in which every added token gets its own id when it is loaded.

    Added tokens that the model's vocabulary lacks are numbered from its end on. Where a padded row
    lies before the end or behind a gap, they must stand inside it.
    """
    data, padded = edited.data, [slot.id for slot in slots if slot.token is None]
    next_ids = list(range(base.num_ids, base.num_ids + len(padded)))
    has_gaps = len(base.ids) < base.num_ids
    if padded and (has_gaps or padded != next_ids) and edited.model["type"] == "BPE":
        vocab = filled_vocabulary(edited)
        in_order = dict(sorted(vocab.items(), key=lambda item: item[1]))
        data = {**data, "model": {**edited.model, "vocab": in_order}}
    with collector_paused():
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
