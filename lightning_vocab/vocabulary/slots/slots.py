"""Slots of a base: ids that have a row but no text of their own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from lightning_vocab.vocabulary.backend_state import BackendState, read_state
from lightning_vocab.vocabulary.describe import rows_of_base
from lightning_vocab.vocabulary.fingerprint import backend, without_limits
from lightning_vocab.vocabulary.slots.patterns import (
    KNOWN_PATTERNS,
    PADDED,
    SENTINEL_PATTERNS,
    check_slot_ids,
    check_slot_patterns,
    expression_of,
)
from lightning_vocab.vocabulary.slots.uses import SlotUses


@dataclass(frozen=True)
class Slot:
    """One id of the base that has a row and can take another token.

    Args:
        id: The row.
        token: What the base calls it, or None for a padded row.
        pattern: The pattern that it was found by; ``padded`` for a padded row.

    Example:
        >>> Slot(id=128002, token="<|reserved_special_token_0|>", pattern="<|reserved_*|>").id
        128002
    """

    id: int
    token: str | None
    pattern: str


def find_slots(
    tokenizer: PreTrainedTokenizerBase,
    base_rows: int | None,
    *,
    patterns: Sequence[str] | None = None,
    ids: Sequence[int] | None = None,
) -> tuple[Slot, ...]:
    """The slots of a base, in the order in which they are taken.

    Padded rows come first, since no text changes when they get a token; then reserved tokens, in
    the order of the patterns and of their ids. A slot is never one that something names: the chat
    template, the special-token map, the post-processor, or a ``…_token_id`` of the model's config
    or generation config. Nor is it one that text or merges can reach.

    Args:
        tokenizer: The base tokenizer.
        base_rows: Height of the base model's matrix. None is just enough for every token, so that
            there are no padded rows behind them.
        patterns: Spellings of slots, instead of `KNOWN_PATTERNS`: text in which ``*`` stands for a
            number, or ``padded``.
        ids: Only these slots, in this order.

    Raises:
        TypeError: If an id is no whole number.
        ValueError: If a pattern finds nothing, or a listed id is out of range, listed twice, in
            use, or holds a token that is not a slot; the message names it.

    Example:
        >>> from tests.conftest import make_tokenizer
        >>> find_slots(make_tokenizer(), 302)[0]
        Slot(id=300, token=None, pattern='padded')
    """
    return slots_of(read_state(tokenizer), base_rows, patterns=patterns, ids=ids)


def slots_of(
    base: BackendState,
    base_rows: int | None,
    *,
    patterns: Sequence[str] | None = None,
    ids: Sequence[int] | None = None,
) -> tuple[Slot, ...]:
    """`find_slots` for callers that have parsed the tokenizer already.

    Args:
        base: State of the base tokenizer.
        base_rows: Height of the base model's matrix.
        patterns: As for `find_slots`.
        ids: As for `find_slots`.

    Raises:
        TypeError: As `find_slots`.
        ValueError: As `find_slots`.
    """
    rows = rows_of_base(base, base_rows)
    # Whoever lists an id knows of it, so a sentinel is taken for a slot there.
    known = KNOWN_PATTERNS if ids is None else (*KNOWN_PATTERNS, *SENTINEL_PATTERNS)
    wanted = known if patterns is None else check_slot_patterns(patterns)
    candidates = {slot.id: slot for slot in _candidates(base, rows, wanted)}
    uses = SlotUses(base, [slot.token for slot in candidates.values() if slot.token])
    used = {i: use for i, slot in candidates.items() if (use := uses.of(i, slot.token))}
    if ids is not None:
        return _listed(base, rows, check_slot_ids(ids), candidates, used)
    free = tuple(slot for slot in candidates.values() if slot.id not in used)
    if patterns is not None:
        _check_found(wanted, free, candidates, used)
    return free


def take_slots(
    base: BackendState,
    base_rows: int | None,
    count: int,
    *,
    patterns: Sequence[str] | None = None,
    ids: Sequence[int] | None = None,
) -> tuple[Slot, ...]:
    """The first ``count`` slots of `slots_of`.

    Args:
        base: State of the base tokenizer.
        base_rows: Height of the base model's matrix.
        count: Number of slots needed.
        patterns: As for `find_slots`.
        ids: As for `find_slots`.

    Raises:
        ValueError: If there are fewer; the message says how many there are.
    """
    found = slots_of(base, base_rows, patterns=patterns, ids=ids)
    if len(found) >= count:
        return found[:count]
    groups = Counter(slot.pattern for slot in found)
    listed = ", ".join(f"{number} {pattern}" for pattern, number in groups.items()) or "none"
    raise ValueError(
        f"{count} slots are needed, the base has {len(found)} ({listed}). Ask for fewer tokens, "
        "name more slots by pattern, append tokens instead (AddTokens, ContinuedBPE without "
        f"into_slots), or pass the height of the base model's matrix, if base_rows={base_rows} is "
        "not it."
    )


def _candidates(base: BackendState, rows: int, patterns: Sequence[str]) -> list[Slot]:
    """Ids that a pattern fits and no text reaches: by pattern, then by id."""
    found: list[tuple[int, int, str | None]] = []
    if PADDED in patterns:
        free = np.setdiff1d(np.arange(rows), np.fromiter(base.ids.values(), np.int64))
        found += [(patterns.index(PADDED), i, None) for i in free.tolist()]
    expression = re.compile("|".join(f"({expression_of(each)})" for each in patterns))
    added = {item["content"] for item in base.added_tokens}
    for token, i in base.ids.items():
        fit = expression.fullmatch(token)
        if fit is not None and (token in added or not _is_text(base, token, i)):
            assert fit.lastindex is not None
            found.append((fit.lastindex - 1, i, token))
    return [Slot(i, token, patterns[k]) for k, i, token in sorted(found, key=lambda one: one[:2])]


def _is_text(base: BackendState, token: str, i: int) -> bool:
    """Whether text gives the id: ``5`` would fit ``*``."""
    tokenizer = backend(base.tokenizer)
    with without_limits(tokenizer):
        return i in tokenizer.encode(token, add_special_tokens=False).ids


def _check_found(
    patterns: Sequence[str],
    free: Sequence[Slot],
    candidates: Mapping[int, Slot],
    used: Mapping[int, str],
) -> None:
    for pattern in patterns:
        if any(slot.pattern == pattern for slot in free):
            continue
        mine = [i for i in used if candidates[i].pattern == pattern]
        why = f" that is free: token {mine[0]} is named by {used[mine[0]]}" if mine else ""
        raise ValueError(
            f"Pattern {pattern!r} finds no slot{why}. A pattern is the spelling of reserved tokens "
            f"with * for a number, such as '<unused*>', or {PADDED!r} for rows without a token."
        )


def _listed(
    base: BackendState,
    rows: int,
    ids: Sequence[int],
    candidates: Mapping[int, Slot],
    used: Mapping[int, str],
) -> tuple[Slot, ...]:
    names = {i: token for token, i in base.ids.items()}
    for i in ids:
        if not 0 <= i < rows:
            raise ValueError(f"Slot id {i} is out of range: the base has rows 0 to {rows - 1}.")
        if i not in candidates:
            what = f"holds {names[i]!r}" if i in names else "has no token"
            raise ValueError(
                f"Id {i} {what}, which is not one of the slots asked for: list free ids only, or "
                "name the reserved tokens by pattern."
            )
        if i in used:
            raise ValueError(
                f"Id {i} ({candidates[i].token!r}) cannot be reused: it is named by {used[i]}."
            )
    return tuple(candidates[i] for i in ids)
