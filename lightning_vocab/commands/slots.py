"""`lightning-vocab slots`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lightning_vocab.commands.output import check_place, write_json
from lightning_vocab.commands.slot_report import SlotReport, medians, report_slots
from lightning_vocab.demo import resolve_base

_MOST_LINES = 12
_FIGURES = {
    "mean": "mean",
    "std": "std",
    "norm": "norm",
    "nonzero": "not\nzero",
    "cosine": "cosine\nto slots",
    "duplicates": "equal\nrows",
}


def slots(base: str, pattern: list[str] | None = None, json: str | None = None) -> None:
    """List the ids of a base that have a row but no text of their own.

    For each slot, and for the rows of ordinary tokens beside them: mean, standard deviation and
    norm of the row, share of elements that are not zero, cosine to the mean of the other slots'
    rows, number of rows equal to it; and whether it looks untrained: zero, equal to another, less
    than half as long as ordinary rows, or turned to the other slots as ordinary rows are not. Only
    the embedding and the head are read from the safetensors files, the model is not loaded.

    Tokens that the chat template, the special-token map, the config or the generation config name
    are no slots. The tokens of ReuseSlots, and of ContinuedBPE with into_slots, take the slots in
    the order of this list.

    Args:
        base: A Hugging Face folder, a hub id, or demo. A folder with a tokenizer alone will do; its
            slots are listed without figures.
        pattern: Spellings of slots, with * for a number, as in '<unused*>'; or padded for rows
            without a token. If not given, the kinds that are known.
        json: A file for the same list in full.

    Raises:
        FileNotFoundError: If the base or the folder of the JSON file does not exist.
        ValueError: If no tokenizer can be read, or a pattern finds no slot.
    """
    check_place(json)
    report = report_slots(resolve_base(base), pattern)
    console = Console()
    _print(report, console)
    if json is not None:
        write_json(json, report.plain())
        console.print(f"Written to {json}", markup=False)


def _print(report: SlotReport, console: Console) -> None:
    rows = "no known number of" if report.num_rows is None else str(report.num_rows)
    console.print(
        f"{len(report.slots)} slots: {report.num_tokens} tokens in {rows} rows ({report.base})",
        markup=False,
    )
    if report.num_rows is None:
        console.print("Padded rows are not among them: there is no config.json that counts rows.")
    if report.missing is not None:
        console.print(f"No figures of rows: {report.missing}", markup=False)
    if not report.slots:
        return
    console.print(_groups(report))
    for name in report.figures:
        console.print(_figures(report, name))


def _groups(report: SlotReport) -> Table:
    """A line for each pattern."""
    table = Table("pattern", "slots", "ids", "look untrained", box=SIMPLE_HEAD)
    verdicts = report.looks_untrained
    for pattern in dict.fromkeys(slot.pattern for slot in report.slots):
        mine = [k for k, slot in enumerate(report.slots) if slot.pattern == pattern]
        ids = sorted(report.slots[k].id for k in mine)
        untrained = "?" if verdicts is None else str(sum(verdicts[k] for k in mine))
        table.add_row(Text(pattern), str(len(mine)), _ranges(ids), untrained)
    return table


def _figures(report: SlotReport, name: str) -> Table:
    """A line for each slot, up to a number of them, below the medians of all."""
    figures, untrained = report.figures[name], report.untrained[name]
    title = "embedding and head" if len(report.figures) == 1 else name
    # Padded on one side only, so that eight columns fit 80 characters.
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left")
    table.add_column("id and token", overflow="fold")
    for header in (*_FIGURES.values(), "un-\ntrained"):
        table.add_column(header, justify="right", no_wrap=True)
    ids = torch.tensor([slot.id for slot in report.slots])
    for group, members in (("ordinary rows", report.used), ("slots", ids)):
        share = f"{int(untrained.sum())}/{len(ids)}" if group == "slots" else ""
        label = f"median of {len(members):,} {group}"
        table.add_row(label, *_numbers(medians(figures, members)), share)
    table.add_section()
    for k, slot in enumerate(report.slots[:_MOST_LINES]):
        own = {key: float(getattr(figures, key)[slot.id]) for key in _FIGURES}
        verdict = "yes" if untrained[k] else "no"
        table.add_row(Text(f"{slot.id} {slot.token or '(padded)'}"), *_numbers(own), verdict)
    if (left := len(report.slots) - _MOST_LINES) > 0:
        table.add_row(f"… {left} more")
    return table


def _numbers(figures: dict[str, float]) -> list[str]:
    """Two digits, but no exponent for a count or a long row."""
    values = [figures[key] for key in _FIGURES]
    return [f"{value:.2g}" if abs(value) < 10 else f"{value:,.0f}" for value in values]


def _ranges(ids: Sequence[int], most: int = 4) -> str:
    """Ids in runs: ``3-5, 9``."""
    starts = [i for k, i in enumerate(ids) if k == 0 or ids[k - 1] != i - 1]
    ends = [i for k, i in enumerate(ids) if k == len(ids) - 1 or ids[k + 1] != i + 1]
    runs = [
        str(first) if first == last else f"{first}-{last}"
        for first, last in zip(starts, ends, strict=True)
    ]
    return ", ".join(runs[:most]) + (", …" if len(runs) > most else "")
