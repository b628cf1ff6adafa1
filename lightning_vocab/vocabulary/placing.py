"""Folders that are whole or not there: written beside their place and renamed into it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def placed_whole(target: Path) -> Iterator[Path]:
    """A new empty folder that takes the place of ``target`` when the block ends without an error.

    Whoever looks never sees a half: the former folder, the whole new one or, for the moment between
    two renames, none; a crash in that moment leaves the former folder beside as ``.former``. After
    an error ``target`` is as it was, and the new folder is gone. Whether ``target`` may be replaced
    is for the caller to decide beforehand.

    Args:
        target: Absolute path of the folder; its parents are made.

    Yields:
        The folder to write into, beside ``target`` and so on the same file system.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.{uuid4().hex[:8]}.partial")
    fresh.mkdir()
    try:
        yield fresh
        _swap(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _swap(fresh: Path, target: Path) -> None:
    if not target.exists():
        fresh.rename(target)
        return
    former = fresh.with_suffix(".former")
    target.rename(former)
    try:
        fresh.rename(target)
    except OSError:
        former.rename(target)
        raise
    shutil.rmtree(former)
