"""New rows that equal another row, sorted by why they do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

from torch import Tensor

from lightning_vocab.contract.row_values import equal_rows
from lightning_vocab.contract.subject import Subject

Shares = frozenset[tuple[int, int]]
"""Pieces with their counts in lowest terms: what a mean of pieces depends on."""


@dataclass(frozen=True)
class EqualRows:
    """New ids whose row equals another, each in one list, ascending.

    Args:
        by_pieces: A mean of pieces gives them one row: all of a group have the same pieces in the
            same shares, such as ``--`` and ``----``, or ``--`` and the old token ``-``.
        as_old: They equal an old row that their pieces do not explain.
        alike: They equal new rows only, of other pieces.
    """

    by_pieces: list[int]
    as_old: list[int]
    alike: list[int]

    @classmethod
    def of(
        cls, subject: Subject, rows: Tensor, ids: Sequence[int], old: Sequence[int]
    ) -> EqualRows:
        """The equal rows of one matrix.

        Args:
            subject: What is checked; its expansion names the pieces.
            rows: The matrix ``(rows, dim)``.
            ids: New ids.
            old: Ids of old tokens.
        """
        found = cls([], [], [])
        groups, new = equal_rows(rows, ids, old), set(ids)
        concerned = new.intersection(id for group in groups for id in group)
        listed = () if subject.expansion is None else subject.expansion.tokens
        shares = {each.id: _shares(each.pieces) for each in listed if each.id in concerned}
        for group in groups:
            # A new token without a manifest has no pieces, and nothing explains its row.
            known = {shares.get(id) if id in new else frozenset({(id, 1)}) for id in group}
            place = found.alike
            if len(known) == 1 and None not in known:
                place = found.by_pieces
            elif not new.issuperset(group):
                place = found.as_old
            place.extend(new.intersection(group))
        for each in (found.by_pieces, found.as_old, found.alike):
            each.sort()
        return found


def _shares(pieces: Sequence[int]) -> Shares:
    counts = Counter(pieces)
    common = gcd(*counts.values())
    return frozenset((piece, count // common) for piece, count in counts.items())
