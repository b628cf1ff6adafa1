"""Findings for people: a rich table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from lightning_vocab.contract.finding import ITEMS, Finding

_STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}


def findings_table(findings: Sequence[Finding], title: str) -> Table:
    """The findings as a table, a line each; what was not checked is dimmed.

    Args:
        findings: What `check_contract` returned.
        title: What was checked.
    """
    counts = [f"{sum(f.status == name for f in findings)} {name}" for name in _STYLES]
    table = Table(title=escape(title), caption=", ".join(counts))
    table.add_column("item", justify="right")
    table.add_column("check", min_width=16, max_width=34)
    table.add_column("")
    table.add_column("found, and what to do", ratio=1)
    shown = 0
    for finding in findings:
        number = "" if finding.item == shown else str(finding.item)
        if number:
            table.add_section()
        shown = finding.item
        style = _STYLES[finding.status]
        text = escape(finding.found)
        if finding.remedy:
            text += f"\n[italic]→ {escape(finding.remedy)}[/italic]"
        name = escape(finding.name)
        if number:
            name += f"\n[dim]{escape(ITEMS[finding.item])}[/dim]"
        table.add_row(number, name, f"[{style}]{finding.status}[/{style}]", text)
    return table
