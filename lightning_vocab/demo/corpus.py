"""Text that every CPython installation carries: English prose and Python source, read in place.

Both sources are split into train and validation by module, the same modules for both. Docstrings
are copied between modules, so prose is not validated on where training text has the same paragraph.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import sys
import sysconfig
import tokenize
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from pydoc_data.topics import topics
from typing import Literal

Split = Literal["train", "validation"]

VALIDATION_SHARE = 10
"""One module (or topic) in this many is held out."""

MIN_CHARACTERS = 200
"""Shorter documents say too little to be worth a row."""

MIN_PARAGRAPH = 40
"""Shorter paragraphs are headings and labels."""

LETTER_SHARE = 0.97
"""Share of letters, blanks and ordinary punctuation from which a paragraph is prose."""

_MARKS = frozenset(" ,.;:'\"()-")
_NO_PROSE = (">>>", "...", "*", "-", "+", "|", "=")  # examples, lists, tables, underlines

# Tables rather than text, code of other decades, or absent from some distributions.
_LEFT_OUT = frozenset(
    {"encodings", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tests", "turtledemo"}
)


def english(split: Split) -> Iterator[str]:
    """English prose: Python's help topics, and one document of docstrings for each module.

    Only paragraphs of prose are kept, each as one line: no examples, tables, signatures or lists,
    so that source code is a domain that a model of this text does not know.

    Args:
        split: ``train`` or ``validation``; disjoint, and the same on every call.

    Yields:
        Documents in a fixed order.

    Raises:
        ValueError: If the split has another name.
    """
    _check(split)  # before the work
    for name, prose in _prose_documents():
        if _is_in(split, name):
            yield prose


def code(split: Split) -> Iterator[str]:
    """The standard library's source code, one document for each module.

    Args:
        split: ``train`` or ``validation``; the modules are divided as in `english`.

    Yields:
        Documents in a fixed order.

    Raises:
        ValueError: If the split has another name.
    """
    _check(split)
    for name, path in _modules():
        if _is_in(split, name):
            source = _read(path)
            if len(source) >= MIN_CHARACTERS:
                yield source


@functools.cache
def _prose_documents() -> tuple[tuple[str, str], ...]:
    """Name and prose of every topic and module that has enough of it; a million characters."""
    texts = chain(
        ((f"topic {name}", topics[name]) for name in sorted(topics)),
        ((name, "\n\n".join(_docstrings(path))) for name, path in _modules()),
    )
    paragraphs = [(name, list(_paragraphs(text))) for name, text in texts]
    trained = {each for name, some in paragraphs if _is_in("train", name) for each in some}
    documents = []
    for name, some in paragraphs:
        kept = some if _is_in("train", name) else [each for each in some if each not in trained]
        documents.append((name, "\n\n".join(kept)))
    return tuple((name, text) for name, text in documents if len(text) >= MIN_CHARACTERS)


def _paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of prose in ``text``, each as one line."""
    for paragraph in re.split(r"\n\s*\n", text):
        lines = paragraph.split("\n")
        if any(line[:1].isspace() or line.startswith(_NO_PROSE) for line in lines):
            continue
        joined = " ".join(line.strip() for line in lines)
        letters = sum(character.isalpha() or character in _MARKS for character in joined)
        if len(joined) >= MIN_PARAGRAPH and letters >= LETTER_SHARE * len(joined):
            yield joined


@functools.cache
def _modules() -> tuple[tuple[str, Path], ...]:
    """Dotted name and file of every pure Python module of the standard library, by name."""
    root = Path(sysconfig.get_path("stdlib"))
    found = []
    for top in sorted(sys.stdlib_module_names - _LEFT_OUT):
        single = root / f"{top}.py"
        paths = [single] if single.is_file() else sorted((root / top).rglob("*.py"))
        for path in paths:
            parts = path.relative_to(root).with_suffix("").parts
            if _LEFT_OUT.isdisjoint(parts) and not parts[0].startswith("_sysconfigdata"):
                found.append((".".join(parts), path))
    if not found:
        raise FileNotFoundError(
            f"No Python source under {root}: this interpreter ships its standard library without "
            "source files, so the demo text is not available. Give a text source of your own."
        )
    return tuple(found)


def _check(split: str) -> None:
    if split not in ("train", "validation"):
        raise ValueError(f"Expected the split 'train' or 'validation', got {split!r}.")


def _is_in(split: Split, name: str) -> bool:
    is_held_out = zlib.crc32(name.encode()) % VALIDATION_SHARE == 0
    return is_held_out == (split == "validation")


def _read(path: Path) -> str:
    with tokenize.open(path) as file:  # honours the file's coding cookie
        return file.read()


def _docstrings(path: Path) -> Iterator[str]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(_read(path))):
        if isinstance(node, documented):
            text = ast.get_docstring(node)
            if text:
                yield inspect.cleandoc(text)
