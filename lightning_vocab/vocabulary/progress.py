"""A progress bar on stderr, silent where nobody watches."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress


def check_progress(progress: object) -> bool | None:
    """The setting of a user.

    Args:
        progress: True, False, or None.

    Raises:
        TypeError: If it is anything else.
    """
    if progress is not None and not isinstance(progress, bool):
        raise TypeError(f"progress must be True, False or None, got {progress!r}.")
    return progress


class Progress:
    """Counts documents, then names the phase that follows.

    Args:
        show: Whether to show anything; None shows it where stderr is a terminal.
    """

    def __init__(self, show: bool | None = None) -> None:
        is_shown = sys.stderr.isatty() if show is None else show
        self._progress = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,} documents"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not is_shown,
        )
        self._task = self._progress.add_task("reading text", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def advance(self, documents: int) -> None:
        """Count documents that were read.

        Args:
            documents: Number of documents.
        """
        self._progress.advance(self._task, documents)

    def phase(self, name: str) -> None:
        """Name what happens now.

        Args:
            name: The phase.
        """
        self._progress.update(self._task, description=name)
