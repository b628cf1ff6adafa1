"""Saving and loading the checkpoint folders of a module that is divided among ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.load import _METADATA_FILENAME as METADATA_NAME
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.checkpoint.filesystem import FileSystemReader

from lightning_vocab.vocabulary.whole_files import whole_folder

__all__ = ["METADATA_NAME", "guard_checkpoints", "only_saved_states", "read_metadata"]


def guard_checkpoints(
    strategy: ModelParallelStrategy, module: nn.Module, check: Callable[[dict[str, Any]], None]
) -> None:
    """Let the strategy replace a checkpoint folder as a whole, and look at one before it loads it.

    Saving: a process that is killed leaves the former folder as it was, where Lightning would have
    overwritten it file by file. All ranks must see one file system, as Lightning asks for, too.

    Loading: what does not fit is refused by name, and not by a shape or a missing key; and a
    parameter without an optimizer state in the checkpoint has none after loading (see
    `only_saved_states`). Lightning names the checkpoint's path nowhere else before it loads.

    Args:
        strategy: The strategy of the Trainer.
        module: The module that it saves and loads.
        check: Refuses a checkpoint, of which it gets all but the tensors.
    """

    def save(
        checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None
    ) -> None:
        target = Path(strategy.broadcast(filepath)).absolute()
        with whole_folder(target) if strategy.is_global_zero else nullcontext() as fresh:
            folder = strategy.broadcast(fresh)
            assert folder is not None, "rank 0 has made it"
            ModelParallelStrategy.save_checkpoint(strategy, checkpoint, folder, storage_options)
            strategy.barrier()  # rank 0 puts the folder in its place when all have written
        strategy.barrier()

    def load(checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        check(read_metadata(checkpoint_path))
        with only_saved_states(module, checkpoint_path):
            return ModelParallelStrategy.load_checkpoint(strategy, checkpoint_path, weights_only)

    strategy.save_checkpoint = save  # type: ignore[method-assign]  # of this one strategy
    strategy.load_checkpoint = load  # type: ignore[method-assign]  # as above


def read_metadata(path: str | Path) -> dict[str, Any]:
    """All of a checkpoint folder but its tensors.

    Args:
        path: The folder that `ModelParallelStrategy` has written.

    Raises:
        MisconfigurationException: If it is something else.
    """
    file = Path(path) / METADATA_NAME
    if not file.is_file():
        raise MisconfigurationException(
            f"ModelParallelStrategy loads a checkpoint folder that it has written, got {path}. "
            "The optimizer's state in one file names parameters by number, which does not fit: go "
            "on with the strategy that wrote it, or export the model and start from the export."
        )
    found: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return found


@contextmanager
def only_saved_states(module: nn.Module, path: str | Path) -> Iterator[None]:
    """Freeze each parameter of which the checkpoint holds no optimizer state, while it is loaded.

    Loading gives the optimizer the states that it would have if everything trainable had trained,
    and asks the checkpoint for each of them. What was frozen when the checkpoint was written has
    none, and must not get one: the first step after unfreezing would be another.

    Args:
        module: The module, with the names that the checkpoint knows.
        path: The checkpoint folder.
    """
    saved = FileSystemReader(path).read_metadata().state_dict_metadata
    start = "optimizer_0.state."
    # The name of a state follows that of its parameter: model.norm.weight.exp_avg
    with_state = {name.removeprefix(start).rpartition(".")[0] for name in saved if start in name}
    frozen = [
        parameter
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and name not in with_state
    ]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
