"""A forked process tokenises alone: it has the parent's thread pool without its threads."""

from __future__ import annotations

import os

_SWITCH = "TOKENIZERS_PARALLELISM"


def _leave_the_pool() -> None:
    """Turn the threads of `tokenizers` off in this process.

    `tokenizers` does so by itself after a fork, unless the switch is set by hand: then the child
    of a process that has tokenised waits forever for threads that were not forked with it. Ranks
    of ``ddp_fork`` and ``ddp_notebook`` and the workers of a loader are such children.
    """
    if _SWITCH in os.environ:
        os.environ[_SWITCH] = "false"


os.register_at_fork(after_in_child=_leave_the_pool)
