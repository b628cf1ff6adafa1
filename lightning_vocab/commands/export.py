"""`lightning-vocab export`."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
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

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint that `fit` wrote.
    """
    _check_checkpoint(checkpoint)
    places = {"base": base, "expansion_dir": expansion_dir}
    moved: dict[str, Any] = {name: place for name, place in places.items() if place is not None}
    module = VocabExpansionModule.load_from_checkpoint(checkpoint, map_location="cpu", **moved)
    module.export(out, overwrite=overwrite)
    Console().print(f"Exported to {out}")


def _check_checkpoint(path: str) -> None:
    """Refuse what is no checkpoint of a run; no weights are read."""
    if Path(path).is_dir():
        raise ValueError(
            f"{path!r} is a folder: expected a checkpoint file. Folders are what "
            "ModelParallelStrategy writes; add ExportHuggingFace to the callbacks of such a run, "
            "and go on with --ckpt_path to export at its end."
        )
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no checkpoint {path!r}: expected a file that fit wrote.")
    if not zipfile.is_zipfile(path):  # what torch.save writes, and all that can be mapped
        raise ValueError(
            f"{path!r} is no checkpoint that fit wrote: it is cut short, or no checkpoint at all."
        )
    try:
        found = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path!r} is no checkpoint that fit wrote: {str(error).splitlines()[0]}"
        ) from error
    wanted = ("pytorch-lightning_version", "state_dict", "hyper_parameters")
    missing = [key for key in wanted if key not in found] if isinstance(found, dict) else wanted
    if missing:
        raise ValueError(f"{path!r} is no checkpoint that fit wrote: it has no {missing[0]!r}.")
