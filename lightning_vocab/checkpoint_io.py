"""Checkpoints that are whole or not there, and the newest whole one of a run.

What lightning 2.6.6, fsspec 2026.9 and torch 2.13 do, and why it does not outlive a kill:

- `TorchCheckpointIO` builds the file in memory, copies it there once more
  (``lightning/fabric/utilities/cloud_io.py``, `_atomic_save`), writes it in an fsspec transaction
  to the *system's temporary folder* and moves it to its place by `shutil.move`
  (``fsspec/implementations/local.py``, `LocalFileOpener`). On another file system that is a copy
  into the place itself: a kill leaves a half ``last.ckpt`` where a whole one stood. Nothing is
  waited for on the disk, and what a killed run leaves in the temporary folder bears no name.
- `ModelCheckpoint` removes the former checkpoint only after the new one is written, so there is
  always a whole one if each is written whole. With ``save_last="link"`` it then removes the link
  and makes it anew: a kill in between leaves no ``last.ckpt``, or one that points to nothing. After
  a resume it never removes the file that the run was resumed from.
- ``ckpt_path="last"`` takes the youngest file whose name begins with ``last``, whole or not, in the
  folder of the *new* run: with a logger that is a new, empty ``version_N``. Where it finds none,
  the run begins anew with a warning, whatever other checkpoints there are.
- `torch.load` refuses a cut file, speaking of a "central directory", and loads one with damaged
  bytes without a word: it leaves the checksums in the file alone.
"""

from __future__ import annotations

import errno
import pickle
import zipfile
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities import rank_zero_info, rank_zero_warn
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from typing_extensions import override

from lightning_vocab.distributed import METADATA_NAME, read_metadata
from lightning_vocab.vocabulary.whole_files import remove_leftovers, whole_file


class WholeFileCheckpointIO(TorchCheckpointIO):
    """Writes each checkpoint beside its place, waits for the disk, and renames it into its place.

    A run that is killed at any moment leaves the former checkpoint or the new one, each whole. What
    it leaves of a half one is never read, and removed by the next save or resumption. A file that
    is cut off or damaged is refused. The command line uses this wherever no other plugin is given;
    otherwise pass it in the Trainer's ``plugins``. Paths with a scheme (``s3://…``) are left to
    Lightning.

    Memory: none beside the checkpoint itself. Cost of loading: the file is read once more, to
    compare its checksums.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> quiet = dict(logger=False, accelerator="cpu", enable_progress_bar=False)
        >>> trainer = Trainer(plugins=[WholeFileCheckpointIO()], **quiet)
        >>> type(trainer.strategy.checkpoint_io).__name__
        'WholeFileCheckpointIO'
    """

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint, in place of one of that name."""
        if storage_options is not None or _is_remote(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        place = Path(path)
        remove_leftovers(place.parent, place.suffix)
        with whole_file(place) as fresh:
            torch.save(checkpoint, fresh)

    @override
    def load_checkpoint(
        self,
        path: _PATH,
        map_location: Callable[..., Any] | None = lambda storage, loc: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If the file is cut off or damaged.
        """
        place = None if _is_remote(path) else Path(path)
        if place is not None and place.is_dir():
            raise ValueError(
                f"{path} is a folder, as ModelParallelStrategy writes it: go on with that strategy."
            )
        if place is not None and place.is_file() and (problem := find_damage(place)):
            raise ValueError(
                f"{path} is no whole checkpoint: {problem}. Resume with --ckpt_path last, that is "
                "the newest whole one, or name another."
            )
        return super().load_checkpoint(path, map_location, weights_only)


def find_damage(path: _PATH) -> str | None:
    """What is wrong with a file of `torch.save`, or None if it is as it was written.

    The file's own checksums are compared, which cover all that it holds, but not the names and
    lengths of its parts. Cost: the file is read once.

    Args:
        path: The file.
    """
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
    except zipfile.BadZipFile:
        return f"its {Path(path).stat().st_size:,} bytes end before the file does"
    except OSError as error:
        if error.errno != errno.EINVAL:  # a place before the start of the file is no reading error
            raise
        return "its list of parts is damaged"
    except (ValueError, EOFError, RuntimeError):
        return "its list of parts is damaged"
    return None if damaged is None else f"{damaged} in it is damaged"


def newest_checkpoint(folders: Iterable[str | Path]) -> Path | None:
    """The youngest whole ``.ckpt`` in any of the folders; None if there is none.

    A file, or a folder as `ModelParallelStrategy` writes it. Broken files, and checkpoints of
    weights alone, are passed over with a warning, links to nothing without one.

    Args:
        folders: Where to look, not deeper; a folder need not exist.
    """
    found = [path for folder in folders for path in Path(folder).glob("*.ckpt")]
    written = {path: _written(path) for path in found}
    whole = [path for path in found if written[path]]
    for path in sorted(whole, key=lambda path: written[path], reverse=True):
        problem = (find_damage(path) if path.is_file() else None) or _lack(path)
        if problem is None:
            return path
        rank_zero_warn(f"{path} is passed over, it is no whole checkpoint: {problem}.")
    return None


def checkpoint_to_resume(trainer: Trainer) -> Path | None:
    """The newest whole checkpoint that runs of this Trainer's settings have left; None without one.

    What killed runs have left of half ones is removed.

    Looked for in the folder of each `ModelCheckpoint`. Where none is given that is a folder of the
    logger, anew for each start, so those of all starts count. A folder that serves several runs
    does not tell them apart: give each run its own ``default_root_dir`` or ``dirpath``.

    Args:
        trainer: The Trainer of the run that goes on.

    Raises:
        ValueError: If checkpoints are kept on another machine.
    """
    folders = _checkpoint_folders(trainer)
    for folder in folders:
        if folder.is_dir():
            remove_leftovers(folder, ".ckpt")  # a run that was killed at its end saves no more
    newest = newest_checkpoint(folders)
    if newest is None:
        rank_zero_info(f"No checkpoint in {', '.join(map(str, folders)) or 'any folder'} yet.")
    else:
        written = datetime.fromtimestamp(_written(newest) / 1e9).isoformat(" ", "seconds")
        rank_zero_info(f"The newest whole checkpoint is {newest}, written at {written}.")
    return newest


def write_whole_checkpoints(trainer: Trainer) -> None:
    """Let a Trainer use `WholeFileCheckpointIO`, unless it was given a plugin for its files.

    Args:
        trainer: A Trainer that has not begun.
    """
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = WholeFileCheckpointIO()


def _written(path: Path) -> int:
    """When a checkpoint was written, in nanoseconds; 0 if it is none."""
    file = path / METADATA_NAME if path.is_dir() else path
    return file.stat().st_mtime_ns if file.is_file() else 0


def _lack(path: Path) -> str | None:
    """What a checkpoint lacks that a run goes on from."""
    try:
        if path.is_dir():
            found = read_metadata(path)
        else:
            found = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError:  # it has objects of its own: whoever loads it will say so
        return None
    except (RuntimeError, EOFError, KeyError, ValueError):  # a list of parts with wrong places
        return "its list of parts is damaged"
    return None if "lr_schedulers" in found else "it holds weights alone"


def _checkpoint_folders(trainer: Trainer) -> list[Path]:
    folders = []
    for callback in trainer.checkpoint_callbacks:
        given = getattr(callback, "dirpath", None)
        if not isinstance(callback, ModelCheckpoint):
            continue
        if given is not None and _is_remote(given):
            raise ValueError(
                f"Expected checkpoints in a local folder, got {given}: give the path of the one to "
                "resume from instead of 'last'."
            )
        if given is not None:
            folders.append(Path(given))
        elif trainer.loggers:
            logger = trainer.loggers[0]
            runs = Path(logger.save_dir or trainer.default_root_dir) / str(logger.name)
            folders += sorted(runs.glob("*/checkpoints"))
        else:
            folders.append(Path(trainer.default_root_dir) / "checkpoints")
    return folders


def _is_remote(path: _PATH) -> bool:
    return "://" in str(path)
