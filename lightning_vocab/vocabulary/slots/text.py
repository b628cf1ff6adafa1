"""Text tokens in slots: what continued training needs to know of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_vocab.vocabulary.backend_state import BackendState
from lightning_vocab.vocabulary.bpe.growth import grow
from lightning_vocab.vocabulary.bpe.merge_training import Merge
from lightning_vocab.vocabulary.limits import check_switches
from lightning_vocab.vocabulary.slots.edit import check_gone, without_slots
from lightning_vocab.vocabulary.slots.patterns import check_slot_patterns
from lightning_vocab.vocabulary.slots.slots import Slot, take_slots


class SlotChoice:
    """Whether new tokens go into slots, and which.

    Args:
        into_slots: Whether they do.
        patterns: Which slots they take; all known kinds if not given.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If patterns are given though no slot is to be taken, or one is empty.
    """

    def __init__(self, into_slots: bool, patterns: Sequence[str] | None) -> None:
        check_switches(into_slots=into_slots)
        if patterns is not None:
            patterns = check_slot_patterns(patterns, "slot_patterns")
        if patterns is not None and not into_slots:
            raise ValueError(
                f"slot_patterns={list(patterns)} says which slots to take, but into_slots is "
                "False: set it, or leave the patterns out."
            )
        self.into_slots = into_slots
        self.patterns = None if patterns is None else list(patterns)

    def arguments(self) -> dict[str, Any]:
        """What a manifest says of the choice; nothing where tokens are appended."""
        if not self.into_slots:
            return {}
        return {"into_slots": True, "slot_patterns": self.patterns}

    def take(self, base: BackendState, base_rows: int | None, count: int) -> tuple[Slot, ...]:
        """The slots of ``count`` new tokens; none where tokens are appended.

        Args:
            base: State of the base tokenizer.
            base_rows: Height of the base model's matrix.
            count: Number of new tokens.

        Raises:
            ValueError: If there are fewer slots.
        """
        if not self.into_slots:
            return ()
        return take_slots(base, base_rows, count, patterns=self.patterns)


def grow_into(
    slots: Sequence[Slot],
    base: BackendState,
    characters: Sequence[str],
    merges: Sequence[Merge],
) -> BackendState:
    """The base grown by characters and merges, in slots if there are any.

    A filled slot leaves the added tokens and joins the vocabulary; its merge stands behind the
    base's merges like every other.

    Args:
        slots: A slot for each new token, or none to append.
        base: A BPE tokenizer.
        characters: Single characters that the base vocabulary lacks.
        merges: Merges to append, in order of rank.

    Raises:
        ValueError: If an added token of the base cannot stand in the model's vocabulary, or an old
            spelling comes back when the tokenizer is loaded.
    """
    if not slots:
        return grow(base, characters, merges)
    ids = [slot.id for slot in slots]
    grown = grow(without_slots(base, slots), characters, merges, ids=ids)
    check_gone(grown, slots)
    return grown


def former_tokens(slots: Sequence[Slot]) -> dict[str, dict[str, str]]:
    """For a manifest's report: what the filled slots were called, by id; nothing if unnamed.

    Args:
        slots: The filled slots.
    """
    former = {str(slot.id): slot.token for slot in slots if slot.token is not None}
    return {"former": former} if former else {}
