"""What growth must leave as it was, and what it must reach: checked on every grown tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tokenizers import Tokenizer, models

from lightning_vocab.vocabulary.backend_state import BackendState
from lightning_vocab.vocabulary.fingerprint import backend
from lightning_vocab.vocabulary.wording import some

_PIPELINE = ("normalizer", "pre_tokenizer", "decoder")
_LARGEST_SHIFT = 1e-6
"""By how much all scores of a Unigram base may be lowered together: float32 has no more digits."""


def check_guarantees(
    base: BackendState, grown: BackendState, new: Mapping[int, str], *, slots: Collection[int]
) -> None:
    """Make sure that growth kept every promise.

    Args:
        base: State of the tokenizer before it grew.
        grown: State of the tokenizer after it grew.
        new: Id and string of every new token.
        slots: Ids of reused slots: the only old ids that may change.

    Raises:
        ValueError: If a promise is broken; the message says which one and by what.
    """
    _check_wrapper(base, grown)
    _check_pipeline(base, grown)
    _check_old_ids(base, grown, new, slots)
    _check_merges(base, grown)
    _check_scores(base, grown)
    added = {item["id"] for item in grown.added_tokens}
    dead = dead_tokens(backend(grown.tokenizer), {i: new[i] for i in new if i not in added})
    if dead:
        raise ValueError(
            f"{len(dead)} new tokens can never be produced by the grown tokenizer, such as "
            f"{some(new[i] for i in dead)}: {_cause(grown)}"
        )


def _cause(grown: BackendState) -> str:
    if grown.model.get("type") == "Unigram":
        return "other pieces score more. Raise their scores, or leave them out."
    return "no sequence of merges leads to them. Append the merges they need, or leave them out."


def dead_tokens(tokenizer: Tokenizer, tokens: Mapping[int, str]) -> list[int]:
    """Ids of tokens whose own string is not cut into just that token.

    ``ignore_merges`` is off during the check: with it a whole word finds its token without any
    merge, and a token that no longer word can use would pass.

    Args:
        tokenizer: The backend.
        tokens: Id and string of the tokens to look at.
    """
    model = tokenizer.model
    with _merges_only(model):
        return [
            i for i, token in tokens.items() if [piece.id for piece in model.tokenize(token)] != [i]
        ]


@contextmanager
def _merges_only(model: models.Model) -> Iterator[None]:
    if not isinstance(model, models.BPE):
        yield
        return
    before = model.ignore_merges
    model.ignore_merges = False
    try:
        yield
    finally:
        model.ignore_merges = before


def _check_wrapper(base: BackendState, grown: BackendState) -> None:
    reads: dict[str, Callable[[Any], object]] = {
        "class": lambda tokenizer: type(tokenizer).__name__,
        "special-token map": lambda tokenizer: dict(tokenizer.special_tokens_map),
        "chat template": lambda tokenizer: tokenizer.chat_template,
    }
    for name, read in reads.items():
        expected, found = read(base.tokenizer), read(grown.tokenizer)
        if expected != found:
            raise ValueError(
                f"The {name} of the grown tokenizer differs from its base: expected "
                f"{str(expected)[:200]!r}, got {str(found)[:200]!r}."
            )


def _check_pipeline(base: BackendState, grown: BackendState) -> None:
    parts = {name: (base.data[name], grown.data[name]) for name in _PIPELINE}
    flags = [
        {key: value for key, value in state.model.items() if key not in ("vocab", "merges")}
        for state in (base, grown)
    ]
    parts["model"] = (flags[0], flags[1])
    for name, (expected, found) in parts.items():
        if expected != found:
            raise ValueError(
                f"The {name} of the grown tokenizer differs from its base, so base text would be "
                f"cut or read otherwise: expected {str(expected)[:200]}, got {str(found)[:200]}."
            )


def _check_old_ids(
    base: BackendState, grown: BackendState, new: Mapping[int, str], slots: Collection[int]
) -> None:
    taken = set(base.ids.values())
    if clash := [i for i in new if i in taken and i not in slots]:
        raise ValueError(
            f"New tokens took ids of the base, such as {some(f'{i}: {new[i]}' for i in clash)}. "
            "Old ids must stay; name reused slots as kind 'slot'."
        )
    is_kept = base.ids.items() <= grown.ids.items()
    if moved := [] if is_kept else _moved(base, grown, slots):
        raise ValueError(
            f"{len(moved)} old tokens are missing or have another id in the grown tokenizer, such "
            f"as {some(moved)}: old ids must stay as they are."
        )
    kept = {item["id"]: item for item in grown.added_tokens}
    changed = [
        item["content"]
        for item in base.added_tokens
        if item["id"] not in slots and kept.get(item["id"]) != item
    ]
    promoted = [kept[i]["content"] for i in taken.intersection(kept) - _ids(base) - set(slots)]
    if changed or promoted:
        raise ValueError(
            f"Added tokens of the base changed, such as {some(changed + promoted)}: an old token "
            "must keep its settings (special, normalized, lstrip, rstrip, single_word)."
        )


def _check_merges(base: BackendState, grown: BackendState) -> None:
    if base.model.get("type") != "BPE":
        return
    old, new = base.model["merges"], grown.model["merges"]
    if new[: len(old)] == old:
        return
    at = next((k for k, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), len(new))
    raise ValueError(
        f"The merges of the base must come first and in their order, but merge {at} is "
        f"{new[at] if at < len(new) else 'missing'} instead of {old[at]}: append merges only."
    )


def _check_scores(base: BackendState, grown: BackendState) -> None:
    """Old scores may be lowered together: it is how new pieces cost tokens nothing."""
    if base.model.get("type") != "Unigram":
        return
    old, new = base.model["vocab"], grown.model["vocab"]
    if [token for token, _ in new[: len(old)]] != [token for token, _ in old]:
        raise ValueError("The pieces of the base must come first in the model's list, as they are.")
    shifts = [a - b for (_, a), (_, b) in zip(old, new, strict=False)]
    if min(shifts) < 0 or max(shifts) > _LARGEST_SHIFT or max(shifts) - min(shifts) > 1e-12:
        at = max(range(len(old)), key=lambda i: abs(shifts[i]))
        raise ValueError(
            f"The scores of the base must stay, or be lowered together by up to {_LARGEST_SHIFT}: "
            f"{old[at][0]!r} has {new[at][1]} instead of {old[at][1]}, so base text would be cut "
            "otherwise."
        )


def _moved(base: BackendState, grown: BackendState, slots: Collection[int]) -> list[str]:
    """Old tokens without their id; a slot's old spelling must be gone, not under another id."""
    found = grown.ids.get
    return [token for token, i in base.ids.items() if found(token) != (None if i in slots else i)]


def _ids(state: BackendState) -> set[int]:
    return {item["id"] for item in state.added_tokens}
