"""Text on the command line: ``name=path::field``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from lightning_vocab.data.sources import TextSource

_NAMED = re.compile(r"([\w.-]*)=(.*)", re.DOTALL)


def parse_texts(words: Sequence[str]) -> dict[str, TextSource]:
    """Sources by name.

    Args:
        words: ``path``, ``name=path``, ``path::field`` or ``name=path::field`` each. A path is
            what `TextSource` takes: a ``.txt``, ``.jsonl``, ``.jsonl.gz`` or ``.parquet`` file, a
            folder of such files, ``demo:english``, ``demo:code``, or a data set on the hub. The
            name is the file's own, and the field ``text``, where they are not given. A name is
            letters, digits, ``_``, ``.`` and ``-``; a path that exists as it stands is a path,
            also if it holds ``=``.

    Raises:
        ValueError: If two sources have one name, or a part is empty.

    Example:
        >>> parse_texts(["th=ntrex.jsonl::th"])["th"].text_field
        'th'
        >>> list(parse_texts(["corpora/posts.jsonl", "demo:code"]))
        ['posts', 'code']
    """
    sources: dict[str, TextSource] = {}
    for word in words:
        head, has_field, field = word.partition("::")
        named = None if Path(head).expanduser().exists() else _NAMED.fullmatch(head)
        name, path = (_name_of(head), head) if named is None else named.groups()
        if not name or not path or (has_field and not field):
            raise ValueError(f"Expected a text as name=path::field or path, got {word!r}.")
        if name in sources:
            raise ValueError(
                f"Two texts are named {name!r}: give each a name of its own, as in name=path."
            )
        sources[name] = TextSource(path, text_field=field or "text")
    return sources


def _name_of(path: str) -> str:
    if path.startswith("demo:"):
        return path.removeprefix("demo:")
    return Path(path).name.split(".")[0]
