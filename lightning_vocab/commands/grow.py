"""`lightning-vocab grow`."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from rich.console import Console
from rich.table import Table

from lightning_vocab.commands.output import check_place, write_json
from lightning_vocab.commands.texts import parse_texts
from lightning_vocab.data.documents import read_documents
from lightning_vocab.data.growing import base_rows
from lightning_vocab.data.sources import as_sources
from lightning_vocab.demo import resolve_base
from lightning_vocab.vocabulary import ExpandedTokenizer, Extender, load_tokenizer, save_expansion

_SHOWN = 20


def grow(
    base: str,
    out: str,
    extender: Extender | None = None,
    text: list[str] | None = None,
    overwrite: bool = False,
    json: str | None = None,
) -> None:
    """Grow a tokenizer and write the expansion folder; no model is trained.

    The folder holds the grown tokenizer, which AutoTokenizer loads, and vocab_expansion.json, the
    manifest that says which ids are new. `lightning-vocab fit --model.expansion_dir OUT` trains a
    model for it.

    Args:
        base: `demo`, a Hugging Face folder or a hub id.
        out: The expansion folder to write.
        extender: How to grow: a class and its arguments, such as `--extender ContinuedBPE
            --extender.num_new_tokens 1000`, AddTokens, ContinuedUnigram, MergeTokenizer or
            ReuseSlots; `--extender.help CLASS` lists the arguments.
        text: Texts to learn from, for the extenders that learn: path, name=path, or
            name=path::field each.
        overwrite: Whether an older expansion in `out` may be replaced.
        json: File for the new tokens and what the extender reports.
    """
    if extender is None:
        raise ValueError("Expected how to grow: --extender CLASS and its arguments.")
    check_place(json)
    sources = as_sources(list(parse_texts(text or []).values()) or None, "train")

    def documents() -> Iterable[str]:
        return chain.from_iterable(map(read_documents, sources))

    folder = resolve_base(base)
    rows = base_rows(folder)
    expanded = extender.extend(load_tokenizer(folder), documents(), base_rows=rows)
    place = save_expansion(expanded, out, overwrite=overwrite)
    console = Console()
    console.print(_table(expanded))
    console.print(f"Wrote {place}")
    if json is not None:
        write_json(json, _plain(expanded))


def _table(expanded: ExpandedTokenizer) -> Table:
    """The first new tokens, and how many there are."""
    expansion = expanded.expansion
    table = Table(
        title=f"{len(expansion.tokens):,} new tokens, {expansion.base_rows:,} -> "
        f"{expansion.num_rows:,} rows"
    )
    for title in ("id", "token", "kind", "pieces in the base"):
        table.add_column(title, justify="right" if title == "id" else "left")
    for token in expansion.tokens[:_SHOWN]:
        pieces = " ".join(map(str, token.pieces))
        table.add_row(str(token.id), repr(token.surface), token.kind, pieces)
    if len(expansion.tokens) > _SHOWN:
        table.add_row("…", f"{len(expansion.tokens) - _SHOWN:,} more", "", "")
    return table


def _plain(expanded: ExpandedTokenizer) -> dict[str, object]:
    expansion = expanded.expansion
    return {
        "base_rows": expansion.base_rows,
        "num_rows": expansion.num_rows,
        "extender": dict(expansion.extender),
        "tokens": [
            {"id": token.id, "surface": token.surface, "kind": token.kind}
            for token in expansion.tokens
        ],
    }
