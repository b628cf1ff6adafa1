"""What a forked process must not share with the one that started it."""

from __future__ import annotations

import threading
from typing import Any

from tqdm.std import TqdmDefaultWriteLock


def take_own_progress_lock() -> None:
    """Give the progress bars of this process a lock of its own.

    Theirs is one for all forks: a process that is killed while a bar holds it never gives it back,
    and its parent waits forever.
    """
    own: Any = threading.RLock()
    TqdmDefaultWriteLock.acquire = lambda self, *a, **k: own.acquire(*a, **k)
    TqdmDefaultWriteLock.release = lambda self: own.release()
