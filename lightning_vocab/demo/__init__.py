"""A small base model that ships with the package, and text to grow it on: everything offline."""

from __future__ import annotations

from pathlib import Path

BASE_FOLDER = Path(__file__).parent / "base"
"""A Hugging Face folder: the Llama-type model of `recipes/pretrain_demo.yaml` and its tokenizer."""


def resolve_base(base: str) -> str:
    """The folder of the bundled model for ``demo``; a folder or a hub id as it is."""
    return str(BASE_FOLDER) if base == "demo" else base
