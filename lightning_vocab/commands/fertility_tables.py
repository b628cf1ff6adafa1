"""The tables of `lightning-vocab fertility`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

_ROWS = (
    ("tokens", "num_tokens", "lower"),
    ("tokens per byte", "tokens_per_byte", "lower"),
    ("tokens per character", "tokens_per_character", "lower"),
    ("tokens per grapheme", "tokens_per_grapheme", "lower"),
    ("tokens per word", "tokens_per_word", "lower"),
    ("words in one token", "words_in_one_token_share", "higher"),
    ("unknown", "unknown_share", "lower"),
    ("byte fallback", "byte_fallback_share", "lower"),
    ("partial characters", "partial_character_share", "lower"),
    ("vocabulary used", "vocabulary_used_share", "higher"),
    ("Rényi efficiency", "renyi_efficiency", "higher"),
    ("context in bytes", "effective_context_bytes", "higher"),
    ("context in characters", "effective_context_characters", "higher"),
    ("context in words", "effective_context_words", "higher"),
)
_MAX_NEVER_SEEN = 8


def figures_table(name: str, found: Mapping[str, Any]) -> Table:
    """One text: a row a measure, a column a tokenizer; changes against the first one.

    Args:
        name: The text's name.
        found: Its ``size``, and the figures of each of its ``tokenizers``.
    """
    size, tokenizers = found["size"], found["tokenizers"]
    title = f"{escape(name)}: {size['num_documents']:,} documents, {size['num_bytes']:,} bytes"
    table = _table(title, tokenizers)
    table.add_column("better")
    first = next(iter(tokenizers))
    for label, key, better in _ROWS:
        values = {each: figures[key] for each, figures in tokenizers.items()}
        if any(value is not None for value in values.values()):
            cells = [
                _cell(key, value, None if each == first else values[first])
                for each, value in values.items()
            ]
            table.add_row(label, *cells, better)
            intervals = [figures["intervals"].get(key) for figures in tokenizers.values()]
            if any(intervals):
                table.add_row("  95 % interval", *map(_interval, intervals), "", style="dim")
    lossy = [each for each, figures in tokenizers.items() if figures["unknown_share"] > 0]
    if lossy:
        table.caption = (
            f"{escape(', '.join(lossy))}: unknown text is lost, and runs of it may be one token; "
            "few tokens are no merit then."
        )
    return table


def parity_table(found: Mapping[str, Any]) -> Table:
    """Tokens of each aligned text over tokens of the reference.

    Args:
        found: The ``reference`` and, for each of the ``texts``, the parity of each tokenizer.
    """
    texts = found["texts"]
    table = _table(
        f"parity: tokens over tokens of {escape(found['reference'])}", next(iter(texts.values()))
    )
    for text, tokenizers in texts.items():
        ratios = [f"{each['tokens_ratio']:.3f}" for each in tokenizers.values()]
        table.add_row(escape(text), *ratios)
        intervals = [each["interval"] for each in tokenizers.values()]
        if any(intervals):
            table.add_row("  95 % interval", *map(_interval, intervals), style="dim")
    return table


def new_tokens_table(grown: Mapping[str, Mapping[str, Any]]) -> Table:
    """Use of the new tokens of each expansion, over all texts.

    Args:
        grown: Figures with ``new_tokens`` of each expansion.
    """
    uses = [figures["new_tokens"] for figures in grown.values()]
    table = _table("use of the new tokens", grown)
    table.add_row("new tokens", *(f"{use['num_new_tokens']:,}" for use in uses))
    table.add_row("used at least once", *(f"{use['used_share']:.1%}" for use in uses))
    kinds = dict.fromkeys(kind for use in uses for kind in use["used_share_by_kind"])
    if len(kinds) > 1:
        for kind in kinds:
            shares = [use["used_share_by_kind"].get(kind) for use in uses]
            cells = ["" if share is None else f"{share:.1%}" for share in shares]
            table.add_row(f"  of kind {kind}", *cells)
    table.add_row(
        "share of the text's tokens", *(f"{use['share_of_text_tokens']:.1%}" for use in uses)
    )
    quartiles = [" / ".join(f"{each:,.0f}" for each in use["count_quartiles"]) for use in uses]
    table.add_row("count: quartiles", *quartiles)
    table.add_row("never seen", *(f"{use['num_never_seen']:,}" for use in uses))
    table.add_row("  such as", *map(_never_seen, uses), style="dim")
    return table


def _table(title: str, tokenizers: Mapping[str, Any]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("measure")
    for name in tokenizers:
        table.add_column(escape(name), justify="right", overflow="fold")
    return table


def _cell(key: str, value: float | None, first: float | None) -> str:
    if value is None:
        return "-"
    if key.endswith("_share"):
        return f"{value:.2%}"
    shown = f"{value:,.0f}" if value >= 1000 or key == "num_tokens" else f"{value:.4g}"
    return f"{shown} ({value / first - 1:+.1%})" if first else shown


def _interval(bounds: tuple[float, float] | None) -> str:
    return "" if bounds is None else f"{bounds[0]:.4g} to {bounds[1]:.4g}"


def _never_seen(use: Mapping[str, Any]) -> str:
    unseen = [each["token"] for each in use["counts"] if not each["count"]]
    return escape(" ".join(unseen[:_MAX_NEVER_SEEN]))
