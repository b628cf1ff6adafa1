"""The numbers of grounding before and after a fit: as a table and as a file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from rich.table import Table

from lightning_vocab.vocabulary.whole_files import whole_file


def grounding_table(before: Mapping[str, float], after: Mapping[str, float]) -> Table:
    """New rows before and after, with the old rows beside them where they were measured.

    Args:
        before: Numbers of `measure_grounding` by name; one that is missing leaves its cell empty.
        after: The same after the fit; each gives a line but counts and what is of old rows alone.
    """
    table = Table(title="Grounding: the new rows before and after")
    table.add_column("measure")
    for title in ("before", "after", "old rows"):
        table.add_column(title, justify="right")
    for name, last in after.items():
        if "_num_" in name or ("_old_" in name and not name.startswith("nearest")):
            continue
        old = after.get(name.replace("_new_", "_old_")) if "_new_" in name else None
        cells = (before.get(name), last, old)
        table.add_row(_words(name), *("" if each is None else f"{each:.4f}" for each in cells))
    return table


def write_numbers(
    path: str, step: int, before: Mapping[str, float], after: Mapping[str, float]
) -> None:
    """Write the numbers as JSON, whole.

    Args:
        path: The file; its folder is made.
        step: Optimizer steps at the end of the fit.
        before: Numbers by name.
        after: The same after the steps.
    """
    found = {"step": step, "before": _plain(before), "after": _plain(after)}
    text = json.dumps(found, indent=2, allow_nan=False)
    with whole_file(path) as fresh:
        fresh.write_text(text + "\n", encoding="utf-8")


def _words(name: str) -> str:
    return name.replace("_new_", "_").replace("rsa_", "RSA_").replace("_", " ")


def _plain(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers as JSON has them: it knows no nan."""
    return {name: number if math.isfinite(number) else None for name, number in numbers.items()}
