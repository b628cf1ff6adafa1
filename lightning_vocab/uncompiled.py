"""What torch.compile leaves as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

_Function = TypeVar("_Function", bound=Callable[..., Any])


def uncompiled(function: _Function) -> _Function:
    """Let a compiled module call this function as it is; the graph is cut around it.

    For what no compiler gains from: checks of the first batch, a loss that makes its gradients
    itself, logging.
    """
    left: _Function = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    return left
