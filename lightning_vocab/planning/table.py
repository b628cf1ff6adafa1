"""The tables of `lightning-vocab plan`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lightning_vocab.planning.advice import Advice
from lightning_vocab.planning.points import Plan, PlanPoint
from lightning_vocab.vocabulary.wording import counted


def report(plan: Plan, points: Sequence[PlanPoint], advice: Advice) -> Group:
    """All that is printed: what tokens gain, what they cost, and what to do.

    Args:
        plan: What was measured.
        points: The sizes to show.
        advice: The recommendation.
    """
    parts: list[RenderableType] = [_gains(plan, points, advice)]
    if points[0].cost is None:
        parts.append(
            Text(
                f"Costs are not shown: {plan.model.unknown_because}. Give --hidden_size and --tied "
                "for memory, and --num_backbone_parameters for compute."
            )
        )
    else:
        parts.append(_costs(plan, points, advice))
    return Group(*parts, *_said(advice))


def headline(advice: Advice) -> str:
    """The recommendation in a line.

    Args:
        advice: The recommendation.
    """
    if advice.method == "none":
        return "Do not expand the vocabulary."
    how = {
        "continued_bpe": "by continued BPE (ContinuedBPE, SubwordMean)",
        "continued_bpe_into_slots": "by continued BPE into slots of the base (SubwordMean)",
        "add_tokens": "by addition (AddTokens)",
        "reuse_slots": "into slots of the base (ReuseSlots)",
    }[advice.method]
    return f"Expand by {counted(advice.num_new_tokens, 'token')}, {how}."


def _gains(plan: Plan, points: Sequence[PlanPoint], advice: Advice) -> Table:
    block, floor = plan.budget.block_size, plan.budget.floor
    sources = [f"{name}\n%" for name in plan.held_out] if len(plan.held_out) > 1 else []
    titles = ["new\ntokens", "tokens\n/byte", "change\n%", *sources, "growth\ntext %"]
    table = _table(
        "What new tokens gain, on held-out text",
        f"Context: bytes in {block:,} tokens. Rare: new tokens that training shows less than "
        f"{counted(floor, 'time')}.",
        [*titles, "context\nbytes", "rare"],
    )
    for point in points:
        by_source = [_percent(each) for each in point.change_by_source.values()] if sources else []
        table.add_row(
            f"{point.num_new_tokens:,}",
            f"{point.tokens_per_byte:.4f}",
            _percent(point.change),
            *by_source,
            _percent(point.change_in_growth_text),
            f"{point.effective_context_bytes:,.0f}",
            f"{point.tokens_below_floor:,}",
            style=_style(point, advice),
        )
    return table


def _costs(plan: Plan, points: Sequence[PlanPoint], advice: Advice) -> Table:
    tied = "tied" if plan.model.is_tied else "untied"
    budget = plan.budget
    units = ["params\nM", "weight\nMB", "AdamW\nMB", "logits\nGB", "MFLOP\n/byte", "change\n%"]
    table = _table(
        f"What they cost ({tied}, width {plan.model.hidden_size:,}; bf16)",
        f"AdamW: 12 bytes a parameter. Logits: a batch of {budget.batch_size} x "
        f"{budget.block_size:,} tokens, built whole. Compute per byte (forward) sinks where tokens "
        "change by less than the last column.",
        ["new\ntokens", "rows\nadded", *units, "break-\neven %"],
    )
    for point in points:
        cost = point.cost
        assert cost is not None
        table.add_row(
            f"{point.num_new_tokens:,}",
            f"{cost.num_added_rows:,}",
            f"{cost.added_parameters / 1e6:,.2f}",
            f"{cost.weight_bytes / 1e6:,.1f}",
            f"{cost.adamw_bytes / 1e6:,.1f}",
            f"{cost.logits_bytes / 1e9:,.2f}",
            "" if point.flop_per_byte is None else f"{point.flop_per_byte / 1e6:,.2f}",
            _percent(point.change_in_flop_per_byte),
            _percent(point.break_even_change),
            style=_style(point, advice),
        )
    return table


def _table(title: str, caption: str, columns: Sequence[str]) -> Table:
    """A table without rules between columns: nine of numbers fit 80 characters."""
    table = Table(title=title, caption=caption, box=SIMPLE_HEAD, caption_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _said(advice: Advice) -> list[RenderableType]:
    lines: list[RenderableType] = [Text(headline(advice), style="bold")]
    return lines + [Text(f"  - {reason}") for reason in advice.reasons]


def _style(point: PlanPoint, advice: Advice) -> str:
    is_chosen = advice.method != "none" and point.num_new_tokens == advice.num_new_tokens
    return "bold" if is_chosen else ""


def _percent(change: float | None) -> str:
    if change is None:
        return ""
    return f"{100 * change:+.1f}" if round(1000 * change) else "0.0"
