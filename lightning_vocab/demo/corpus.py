"""Text that every CPython installation carries: English prose and Python source, read in place.

Both sources are split into train and validation by module, so a docstring that the English model
was validated on never comes back in the source code that a grown model trains on.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import sysconfig
import tokenize
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydoc_data.topics import topics

Split = Literal["train", "validation"]

VALIDATION_SHARE = 10
"""One module (or topic) in this many is held out."""

MIN_CHARACTERS = 200
"""Shorter documents say too little to be worth a row."""

# Tables rather than text, code of other decades, or absent from some distributions.
_LEFT_OUT = frozenset(
    {"encodings", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tests", "turtledemo"}
)


def english(split: Split) -> Iterator[str]:
    """English prose: Python's help topics, and one document of docstrings for each module.

    Args:
        split: ``train`` or ``validation``; disjoint, and the same on every call.

    Yields:
        Documents in a fixed order.

    Raises:
        ValueError: If the split has another name.
    """
    for name in sorted(topics):
        if _is_in(split, f"topic {name}"):
            yield topics[name].strip()
    for name, path in _modules():
        if _is_in(split, name):
            prose = "\n\n".join(_docstrings(path))
            if len(prose) >= MIN_CHARACTERS:
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
    for name, path in _modules():
        if _is_in(split, name):
            source = _read(path)
            if len(source) >= MIN_CHARACTERS:
                yield source


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


def _is_in(split: Split, name: str) -> bool:
    if split not in ("train", "validation"):
        raise ValueError(f"Expected the split 'train' or 'validation', got {split!r}.")
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
