"""What `lightning-vocab slots` says of a base: its slots and the figures of their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lightning_vocab.data.growing import base_rows
from lightning_vocab.functional.slot_rows import RowFigures, look_untrained, row_figures
from lightning_vocab.initializers.stored_rows import StoredRows, read_rows
from lightning_vocab.vocabulary.folder import load_tokenizer
from lightning_vocab.vocabulary.slots.slots import Slot, find_slots


@dataclass(frozen=True, eq=False)
class SlotReport:
    """The slots of a base and the figures of their rows.

    Args:
        base: The base, as it was named.
        num_tokens: Tokens of its tokenizer.
        num_rows: Height of its matrices, or None where no config says it.
        slots: Its slots.
        missing: Why there are no figures; None where there are.
        figures: For ``embedding`` and, where it is another matrix, ``head``: figures of all rows.
        untrained: For each of these matrices, which slots look untrained, ``(num_slots,)``.
        used: Ids of the rows that slots are compared with.
    """

    base: str
    num_tokens: int
    num_rows: int | None
    slots: tuple[Slot, ...]
    missing: str | None = None
    figures: Mapping[str, RowFigures] = field(default_factory=dict)
    untrained: Mapping[str, Tensor] = field(default_factory=dict)
    used: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))

    @property
    def looks_untrained(self) -> list[bool] | None:
        """Whether any matrix says so of each slot; None where there are no figures."""
        if not self.untrained:
            return None
        verdicts: list[bool] = torch.stack(list(self.untrained.values())).any(dim=0).tolist()
        return verdicts

    def plain(self) -> dict[str, Any]:
        """The report as plain JSON values; figures of used rows are medians."""
        verdicts: Sequence[bool | None] = self.looks_untrained or [None] * len(self.slots)
        ids = torch.tensor([slot.id for slot in self.slots], dtype=torch.long)
        columns = {name: _columns(each, ids) for name, each in self.figures.items()}
        slots = [
            {
                "id": slot.id,
                "token": slot.token,
                "pattern": slot.pattern,
                "looks_untrained": verdicts[k],
                **{
                    name: {key: values[k] for key, values in columns[name].items()}
                    for name in columns
                },
            }
            for k, slot in enumerate(self.slots)
        ]
        return {
            "base": self.base,
            "num_tokens": self.num_tokens,
            "num_rows": self.num_rows,
            "statistics_missing": self.missing,
            "used_rows": {name: medians(each, self.used) for name, each in self.figures.items()},
            "slots": slots,
        }


def report_slots(base: str, patterns: Sequence[str] | None = None) -> SlotReport:
    """Find the slots of a base and measure their rows.

    Args:
        base: A Hugging Face folder or a hub id.
        patterns: Which slots; all known kinds if not given.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If no tokenizer can be read, a pattern finds nothing, the stored matrices do not
            fit the config, or a row holds nan or infinity.
    """
    tokenizer, rows = load_tokenizer(base), base_rows(base)
    slots = find_slots(tokenizer, rows, patterns=patterns)
    try:
        stored = read_rows(base)
    except (OSError, ValueError) as error:
        return SlotReport(base, len(tokenizer), rows, slots, missing=str(error))
    if len(stored.embedding) != rows:
        raise ValueError(
            f"The config of {base!r} says {rows} rows, its embedding has {len(stored.embedding)}: "
            "is this folder put together from two models?"
        )
    used = _used(tokenizer, slots, len(stored.embedding))
    figures, untrained = _measured(stored, slots, used)
    return SlotReport(base, len(tokenizer), rows, slots, None, figures, untrained, used)


def medians(figures: RowFigures, ids: Tensor) -> dict[str, float]:
    """The median of each figure over some rows.

    Args:
        figures: Figures of all rows.
        ids: The rows, ``(num_ids,)``, at least one.
    """
    return {
        name: float(values[ids].median())
        for name, values in zip(figures._fields, figures, strict=True)
    }


def _used(tokenizer: PreTrainedTokenizerBase, slots: Sequence[Slot], num_rows: int) -> Tensor:
    used = set(tokenizer.get_vocab().values()).difference(slot.id for slot in slots)
    return torch.tensor(sorted(i for i in used if i < num_rows), dtype=torch.long)


def _measured(
    stored: StoredRows, slots: Sequence[Slot], used: Tensor
) -> tuple[dict[str, RowFigures], dict[str, Tensor]]:
    ids = torch.tensor([slot.id for slot in slots], dtype=torch.long)
    matrices = {"embedding": stored.embedding, "head": stored.head}
    figures = {name: row_figures(rows, ids) for name, rows in matrices.items() if rows is not None}
    return figures, {name: look_untrained(each, ids, used) for name, each in figures.items()}


def _columns(figures: RowFigures, ids: Tensor) -> dict[str, list[float]]:
    return {
        name: values[ids].tolist() for name, values in zip(figures._fields, figures, strict=True)
    }
