"""Memory that a call adds to what its process holds; for recipes/benchmarks/step.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch


def megabytes(call: Callable[[], None], device: str) -> float:
    """The high-water mark of a call above what was held before, in MiB; on a CPU under Linux."""
    if device == "cuda":
        before = torch.cuda.memory_allocated() / 2**20
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated() / 2**20 - before
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    call()
    return _status("VmHWM") - before


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 2**10 for line in lines if line.startswith(name))
