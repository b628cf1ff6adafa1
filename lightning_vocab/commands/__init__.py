"""The commands beside `fit`: one function a file; its docstring is the command's help."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

COMMANDS = {
    "check": "Check the contract between tokenizer, model, expansion and text.",
    "export": "Write a Hugging Face folder from a checkpoint.",
    "fertility": "Measure what tokenizers make of text, side by side.",
    "grow": "Grow a tokenizer and write its expansion folder, without training.",
    "plan": "Say how many tokens to add, what they cost, and whether to expand at all.",
    "probe": "Train each initializer for a few steps on a recipe, and rank them.",
    "slots": "List the ids of a base that have a row but no text of their own.",
}
"""Name and summary of every command."""


def find_command(name: str) -> Callable[..., int | None]:
    """The function behind a command; it returns the exit status, None for success.

    Args:
        name: One of `COMMANDS`.
    """
    # Imported when asked for: `fit` need not wait for what `plan` draws with.
    module = import_module(f"{__name__}.{name}")
    command: Callable[..., int | None] = getattr(module, name)
    return command
