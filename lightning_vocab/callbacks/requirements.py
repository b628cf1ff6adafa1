"""What several callbacks ask of the module that they are attached to."""

from __future__ import annotations

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule

from lightning_vocab.module import VocabExpansionModule


def module_with_new_rows(module: LightningModule, who: str) -> VocabExpansionModule:
    """The module, as one whose model has new rows; it need not be built yet.

    Args:
        module: The module of the Trainer.
        who: Name of the callback that asks, for the message.

    Raises:
        MisconfigurationException: If the module is of another kind, or has no expansion.

    Example:
        >>> module = VocabExpansionModule("demo", expansion_dir="runs/expansion")
        >>> module_with_new_rows(module, "NewTokenUsage") is module
        True
    """
    if isinstance(module, VocabExpansionModule) and module.hparams["expansion_dir"] is not None:
        return module
    raise MisconfigurationException(
        f"{who} looks at the new rows of a VocabExpansionModule with an expansion_dir, got "
        f"{type(module).__name__} without new rows. Give expansion_dir, or leave {who} out."
    )
