"""What one check of the contract found, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["pass", "warn", "fail", "skip"]
"""``skip`` is a check that was not made: the finding says what it needs. It is never a pass."""

ITEMS: dict[int, str] = {
    1: "rows of embedding, head and config hold every token",
    2: "every id has a row, names one token, and can be reached",
    3: "special ids agree everywhere, none moved",
    4: "padding is no target, a real end token is",
    5: "start and end tokens as in the training data",
    6: "role and protocol tokens are one id",
    7: "tied or untied as the base",
    8: "memory of the logits",
    9: "effective context",
    10: "text survives encoding and decoding",
    11: "padding_idx freezes no real token",
    12: "new rows are trained, finite, distinct, of usual norm",
    13: "chunked loss equals the plain loss",
    14: "rows divisible as asked, padding rows never generated",
    15: "cached data is this tokenizer's",
    16: "old text and old rows are as they were",
}
"""The items of the contract."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Args:
        item: Number of the contract's item, 1 to 16 (`ITEMS`).
        name: Which check of the item.
        status: ``pass``, ``warn`` (worth knowing, or as the base has it), ``fail``, or ``skip``
            where the check could not be made.
        found: What was found, with the numbers.
        remedy: What to do; empty on a pass.

    Example:
        >>> Check(7, "tie").failed("two matrices", "call tie_weights()").to_dict()["status"]
        'fail'
    """

    item: int
    name: str
    status: Status
    found: str
    remedy: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The finding as plain JSON values, with the item's title."""
        return {**asdict(self), "title": ITEMS[self.item]}


@dataclass(frozen=True)
class Check:
    """Makes the findings of one check, so that item and name are written once.

    Args:
        item: Number of the contract's item.
        name: Which check of the item.
    """

    item: int
    name: str

    def passed(self, found: str) -> Finding:
        """All is as it should be."""
        return Finding(self.item, self.name, "pass", found)

    def warned(self, found: str, remedy: str) -> Finding:
        """Worth knowing, and no reason to stop."""
        return Finding(self.item, self.name, "warn", found, remedy)

    def failed(self, found: str, remedy: str) -> Finding:
        """Not fit to ship."""
        return Finding(self.item, self.name, "fail", found, remedy)

    def skipped(self, found: str, remedy: str) -> Finding:
        """Not checked; the remedy says what to give."""
        return Finding(self.item, self.name, "skip", found, remedy)

    def judged(self, found: str, remedy: str, *, as_base: bool) -> Finding:
        """A warning where the base has the same fault, otherwise a failure."""
        if as_base:
            return self.warned(f"{found}; the base has the same", remedy)
        return self.failed(found, remedy)

    def settled(self, problems: Iterable[Finding], found: str) -> Iterator[Finding]:
        """The problems, or a pass if there is none; a part that was skipped is no pass either."""
        listed = list(problems)
        yield from listed or [self.passed(found)]

    def settled_in_part(self, problems: Iterable[Finding], found: str) -> Iterator[Finding]:
        """As `settled`, where ``found`` holds although a part was skipped."""
        listed = list(problems)
        yield from listed
        if all(problem.status == "skip" for problem in listed):
            yield self.passed(found)
