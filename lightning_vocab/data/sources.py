"""Where text comes from: files, data sets of the Hugging Face hub, and the demo text."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeAlias

Role: TypeAlias = Literal["train", "validation", "test"]

DEMO = "demo:"
SUFFIXES = (".txt", ".jsonl", ".jsonl.gz", ".parquet")
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


@dataclass(frozen=True)
class TextSource:
    """One place that documents come from.

    Args:
        path: A ``.txt``, ``.jsonl``, ``.jsonl.gz`` or ``.parquet`` file, a folder of such files of
            one kind, ``demo:english`` or ``demo:code``, or the name of a data set on the hub.
        text_field: Name of the field or column that holds the text. A ``.txt`` file has none.
        split: Split to read; slices such as ``train[:95%]`` are allowed. Files have the split
            ``train`` alone. By default a file is read whole, and of a data set or the demo text the
            split that the use names: ``train`` to train on, ``validation`` to validate on,
            ``test`` to test on. The demo text has no ``test``; ``validation`` stands for it.
        sample_by: What a document of a ``.txt`` file is: a line, a paragraph (blank lines between)
            or the whole file.
        name: Configuration of a hub data set, such as ``20231101.th``.
        max_documents: Read at most this many documents, from the beginning.

    Raises:
        ValueError: If the path is empty or ``max_documents`` is below 1.

    Example:
        >>> TextSource("corpus.jsonl", text_field="body", split="train[:95%]").path
        'corpus.jsonl'
    """

    path: str
    text_field: str = "text"
    split: str | None = None
    sample_by: Literal["line", "paragraph", "document"] = "line"
    name: str | None = None
    max_documents: int | None = None

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("Expected the path of a text source, got an empty string.")
        if self.max_documents is not None and self.max_documents < 1:
            raise ValueError(
                f"Expected max_documents of at least 1 (or none) for {self.path!r}, "
                f"got {self.max_documents}."
            )

    @property
    def kind(self) -> Literal["files", "demo", "hub"]:
        """What the path means. A path that is no valid hub name, or has a suffix, means files."""
        if self.path.startswith(DEMO):
            return "demo"
        is_file = self.path.endswith(SUFFIXES) or Path(self.path).expanduser().exists()
        return "files" if is_file or _HUB_NAME.fullmatch(self.path) is None else "hub"


SourceLike: TypeAlias = TextSource | str | Mapping[str, Any]
"""A source, its path alone, or its arguments as plain values."""


def as_sources(
    value: SourceLike | Sequence[SourceLike] | None, role: Role
) -> tuple[TextSource, ...]:
    """None, one or several sources as `TextSource` objects whose split is settled.

    Args:
        value: A source, a path, a mapping of arguments, or a list of these.
        role: What the text is for; it names the split where the source does not.

    Raises:
        ValueError: If a list of sources is empty.
    """
    if value is None:
        return ()
    values = [value] if isinstance(value, str | TextSource | Mapping) else value
    if not values:
        raise ValueError(f"Expected at least one text source for {role}, got an empty list.")
    return tuple(_settle(each, role) for each in values)


def as_named_sources(
    value: Mapping[str, SourceLike | Sequence[SourceLike]] | None, role: Role
) -> dict[str, tuple[TextSource, ...]]:
    """Sources by name, as `as_sources` gives them; the names become part of the log's keys.

    Args:
        value: A source or a list of sources for each name.
        role: What the text is for.

    Raises:
        ValueError: If a name is ``train`` or has other signs than letters, digits and ``_ - .``.
    """
    for name in value or {}:
        if name == "train" or re.fullmatch(r"[\w.-]+", name) is None:
            raise ValueError(
                f"Expected names of letters, digits, '_', '-' and '.', other than 'train', for the "
                f"text for {role}; got {name!r}."
            )
    return {name: as_sources(each, role) for name, each in (value or {}).items()}


def plain(value: Any) -> Any:
    """Sources, and lists and dicts of them, as the plain values that a checkpoint may hold."""
    if isinstance(value, TextSource):
        return asdict(value)
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def identify(source: TextSource) -> dict[str, Any]:
    """Plain values that change when the files of a source, or what is read of them, change.

    Files count by absolute path, size and time of change, the demo text by the versions of Python
    and of this package, a hub data set by its name.

    Raises:
        FileNotFoundError: If a file or folder does not exist.
        ValueError: If a file has an unknown suffix.
    """
    identity: dict[str, Any] = {"kind": source.kind, **asdict(source)}
    if source.kind == "demo":
        identity["versions"] = [platform.python_version(), version("lightning-vocab")]
    if source.kind == "files":
        identity["files"] = [identify_file(file) for file in find_files(source.path)]
    return identity


def identify_file(file: Path) -> dict[str, Any]:
    """Absolute path, size in bytes and time of change in nanoseconds of ``file``."""
    status = file.stat()
    return {
        "path": str(file.resolve()),
        "num_bytes": status.st_size,
        "changed_ns": status.st_mtime_ns,
    }


def find_files(path: str) -> list[Path]:
    """The file that ``path`` names, or the files of the folder that it names, by name.

    Raises:
        FileNotFoundError: If there is no such file or folder, or the folder holds no text file.
        ValueError: If the suffix is unknown, or a folder mixes several kinds of files.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise FileNotFoundError(
            f"No file or folder {path!r} (looked in {Path.cwd()}). Expected a {_LIST} file, a "
            "folder of them, demo:english, demo:code or the name of a data set on the hub."
        )
    if place.is_file():
        if not place.name.endswith(SUFFIXES):
            raise ValueError(f"Unknown kind of file {path!r}: expected {_LIST}.")
        return [place]
    files = sorted(file for file in place.rglob("*") if file.name.endswith(SUFFIXES))
    if not files:
        raise FileNotFoundError(f"No {_LIST} file in the folder {path!r}.")
    kinds = sorted({suffix_of(file) for file in files})
    if len(kinds) > 1:
        raise ValueError(
            f"The folder {path!r} mixes {' and '.join(kinds)} files: expected one kind. List the "
            "files as sources of their own."
        )
    return files


def suffix_of(file: Path) -> str:
    """The suffix that says how ``file`` is read: one of `SUFFIXES`."""
    return next(suffix for suffix in reversed(SUFFIXES) if file.name.endswith(suffix))


_LIST = ", ".join(SUFFIXES[:-1]) + f" or {SUFFIXES[-1]}"


def _settle(value: SourceLike, role: Role) -> TextSource:
    if isinstance(value, str):
        value = TextSource(value)
    elif isinstance(value, Mapping):
        value = TextSource(**value)
    if value.split is not None:
        return value
    if value.kind == "files":
        return replace(value, split="train")
    # The demo text has two splits; what is not trained on is held out.
    is_held_out_demo = value.kind == "demo" and role == "test"
    return replace(value, split="validation" if is_held_out_demo else role)
