"""Files and folders that are whole or not there, whenever the process that writes them is killed.

What is written stands in a folder of its own beside its place, ``.NAME.XXXXXXXX.partial``, reaches
the disk, and is renamed into its place: one step within a file system, where a move from another
one is a copy that can be cut off. A rename may reach the disk before what it names does, so that a
machine that goes down leaves an empty file under the right name: hence the `os.fsync`.

A killed writer leaves its ``.partial`` behind. The next writer to the same place removes it, and
can tell it from one that another process, or another machine on a shared file system, is filling
now: a writer holds a lock on its folder, which the system takes back when the process ends, however
it ends. Where there are no locks (Windows, some network file systems) leftovers stay, as nobody can
tell; nothing ever reads them.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

if sys.platform != "win32":
    import fcntl

_PARTIAL = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.partial")
_LOCK = "lock"


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write a file to, which takes the place of ``path`` when the block ends.

    A reader sees the former file or the whole new one, never a half and never none. After an error
    ``path`` is as it was. Cost: the file is waited for until it is on the disk.

    Args:
        path: The file; its folder is made.

    Yields:
        A path on the same file system. Its name says nothing of the format.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with whole_file(Path(folder) / "a.txt") as fresh:
        ...         _ = fresh.write_text("all of it")
        ...     [(file.name, file.read_text()) for file in Path(folder).iterdir()]
        [('a.txt', 'all of it')]
    """
    place = Path(path).expanduser()
    with _beside(place) as fresh:
        yield fresh
        _settle(fresh, place)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A new empty folder that takes the place of ``target`` when the block ends without an error.

    Whoever looks never sees a half: the former folder, the whole new one or, for the moment between
    two renames, none; a process that is killed in that moment leaves the former folder inside its
    ``.partial``, from where the next writer puts it back. After an error ``target`` is as it was.
    Whether ``target`` may be replaced is for the caller to decide beforehand.

    Args:
        target: Absolute path of the folder; its parents are made.

    Yields:
        The folder to write into, on the same file system.
    """
    with _beside(target) as fresh:
        fresh.mkdir()
        yield fresh
        _settle(fresh, target)


def write_whole(place: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` make a file or folder beside ``place`` and rename it there.

    Where another process was faster, its result stays.

    Args:
        place: The file or folder; its parents are made.
        write: Makes it at the path that it is given.
    """
    with _beside(place) as fresh:
        try:
            write(fresh)
            if not place.exists():
                _settle(fresh, place)
        except OSError:
            if not place.exists():
                raise


def remove_leftovers(folder: Path, suffix: str = "") -> list[str]:
    """Remove what killed writers have left in a folder, and put back what they had moved away.

    Args:
        folder: The folder; what stands deeper is left alone.
        suffix: End of the names whose leftovers are meant; all of them if empty.

    Returns:
        The names that the killed writers were writing, in order.
    """
    with _locked(folder) as is_locked:
        found = _leftovers(folder) if is_locked else []
        return sorted(_remove(each) for each in found if _name(each).endswith(suffix))


@contextmanager
def _beside(place: Path) -> Iterator[Path]:
    """A path in a folder beside ``place`` that is locked, and gone when the block ends."""
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_name(f".{place.name}.{uuid4().hex[:8]}.partial")
    with _locked(place.parent) as is_locked:  # a folder and its lock come into being as one
        for each in _leftovers(place.parent) if is_locked else ():
            if _name(each) == place.name:
                _remove(each)
        beside.mkdir()
        (beside / _LOCK).touch()
        lock = _lock(beside / _LOCK)
    try:
        yield beside / "new"
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        _unlock(lock)


def _settle(fresh: Path, place: Path) -> None:
    for path in (*fresh.rglob("*"), fresh) if fresh.is_dir() else (fresh,):
        if not path.is_symlink():
            _sync(path)
    if fresh.is_dir() and place.exists():
        former = fresh.with_name("former")
        place.rename(former)
        try:
            fresh.rename(place)
        except OSError:
            former.rename(place)
            raise
        former.rename(fresh.with_name("replaced"))  # half of it must never be put back
    else:
        fresh.replace(place)
    _sync(place.parent)


def _sync(path: Path) -> None:
    if sys.platform == "win32":  # opens no folder, and syncs no file that is open for reading
        return
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _leftovers(folder: Path) -> list[Path]:
    """Folders of writers that have ended without removing them; the caller holds the lock."""
    found = (each for each in folder.glob(".*.partial") if _PARTIAL.fullmatch(each.name))
    return [each for each in found if _is_left(each)]


def _is_left(beside: Path) -> bool:
    if not (beside / _LOCK).exists():  # killed before it was made, or while it was removed
        return beside.is_dir()
    lock = _lock(beside / _LOCK, wait=False)
    _unlock(lock)
    return lock is not None


def _name(beside: Path) -> str:
    found = _PARTIAL.fullmatch(beside.name)
    assert found is not None, "_leftovers() has matched it"
    return found["name"]


def _remove(beside: Path) -> str:
    former, place = beside / "former", beside.with_name(_name(beside))
    if former.exists() and not place.exists():
        former.rename(place)
    shutil.rmtree(beside, ignore_errors=True)
    return place.name


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder; whether there is one."""
    lock = _lock(folder)
    try:
        yield lock is not None
    finally:
        _unlock(lock)


def _lock(path: Path, *, wait: bool = True) -> int | None:
    """A descriptor that holds the lock of a path; None if it is taken or there are no locks."""
    if sys.platform == "win32":
        return None
    try:
        opened = os.open(path, os.O_RDONLY)
    except OSError:  # another process has just removed it
        return None
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(opened)
        return None
    return opened


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)
