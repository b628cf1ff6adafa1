"""How messages count and list things."""

from __future__ import annotations

from collections.abc import Iterable


def counted(number: int, noun: str) -> str:
    """A number with its noun, singular or plural.

    Args:
        number: How many.
        noun: What, in the singular.

    Example:
        >>> counted(1, "old row"), counted(1200, "old row")
        ('1 old row', '1,200 old rows')
    """
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


def some(names: Iterable[object], limit: int = 5) -> str:
    """The first few of many things, for a message.

    Args:
        names: The things.
        limit: How many are shown.

    Example:
        >>> some("abc", limit=2)
        "'a', 'b' …"
    """
    shown = [repr(name) for name in names]
    return ", ".join(shown[:limit]) + (" …" if len(shown) > limit else "")
