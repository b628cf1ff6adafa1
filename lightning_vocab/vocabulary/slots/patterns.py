"""How slots are spelled, and how a user names them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

PADDED = "padded"
"""The pattern of padded rows: ids that have a row and no token."""

KNOWN_PATTERNS = (
    PADDED,
    "<|reserved_special_token_*|>",
    "<|reserved_token_*|>",
    "<|reserved_*|>",
    "<|reserved*|>",
    "<reserved_token_*>",
    "<reserved_*>",
    "<reserved*>",
    "[reserved_*]",
    "<unused*>",
    "<unused_*>",
    "<|unused*|>",
    "<|unused_*|>",
    "[unused*]",
    "<|extra_*|>",
    "<|dummy_*|>",
    "<dummy*>",
    "<|placeholder*|>",
    "<|placeholder_*|>",
    "<｜place▁holder▁no▁*｜>",
    "<SPECIAL_*>",
    "[control_*]",
)
"""What is found by itself; ``*`` stands for a number."""

SENTINEL_PATTERNS = ("<extra_id_*>",)
"""Tokens that look like slots and are trained (T5 marks gaps with them): never found by itself."""


def check_slot_patterns(patterns: Sequence[str], name: str = "patterns") -> tuple[str, ...]:
    """The patterns, if they are a list of distinct ones.

    Args:
        patterns: Spellings of slots.
        name: What the setting is called.

    Raises:
        TypeError: If it is not a list of strings.
        ValueError: If it is empty, or a pattern is empty or stands there twice.
    """
    is_list = isinstance(patterns, Sequence) and not isinstance(patterns, str)
    if not is_list or not all(isinstance(each, str) for each in patterns):
        raise TypeError(
            f"Expected a list of patterns such as ['<unused*>'] in {name}, got {patterns!r}."
        )
    if not patterns or not all(patterns) or len(set(patterns)) < len(patterns):
        raise ValueError(
            f"Expected {name} that are not empty and stand there once, got {list(patterns)}."
        )
    return tuple(patterns)


def check_slot_ids(ids: Sequence[int]) -> tuple[int, ...]:
    """The ids, if they are distinct whole numbers.

    Args:
        ids: Ids of slots.

    Raises:
        TypeError: If it is not a list, or one is no whole number.
        ValueError: If there is none, or one stands there twice.
    """
    if not isinstance(ids, Sequence):
        raise TypeError(f"Expected a list of ids of slots in ids, got {ids!r}.")
    if strange := [i for i in ids if not isinstance(i, int) or isinstance(i, bool)]:
        raise TypeError(f"Expected ids of slots, which are whole numbers, got {strange[0]!r}.")
    twice = [i for i, count in Counter(ids).items() if count > 1]
    if twice or not ids:
        raise ValueError(
            f"Expected ids of slots, each once, got {f'{twice[0]} twice' if twice else 'none'}."
        )
    return tuple(ids)


def expression_of(pattern: str) -> str:
    """The regular expression of a pattern, for whole tokens.

    Args:
        pattern: Text in which ``*`` stands for a number, or ``padded``.
    """
    if pattern == PADDED:
        return "(?!)"  # fits no token: a token may be spelled so
    return "[0-9]+".join(re.escape(part) for part in pattern.split("*"))
