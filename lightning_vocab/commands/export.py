"""`lightning-vocab export`."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from lightning_vocab.module import VocabExpansionModule


def export(
    checkpoint: str,
    out: str,
    base: str | None = None,
    expansion_dir: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write the model of a checkpoint as a plain Hugging Face folder.

    Args:
        checkpoint: A checkpoint file that `fit` wrote.
        out: The new folder.
        base: Where the base is now, if it has moved since the run.
        expansion_dir: Where the expansion folder is now, if it has moved since the run, or if this
            is not the folder that the run was started from.
        overwrite: Whether an existing folder may be replaced.
    """
    places = {"base": base, "expansion_dir": expansion_dir}
    moved: dict[str, Any] = {name: place for name, place in places.items() if place is not None}
    module = VocabExpansionModule.load_from_checkpoint(checkpoint, map_location="cpu", **moved)
    module.export(out, overwrite=overwrite)
    Console().print(f"Exported to {out}")
