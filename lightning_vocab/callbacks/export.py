"""Write the trained model as a plain Hugging Face folder when a fit ends."""

from __future__ import annotations

from lightning.fabric.utilities import rank_zero_info
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.rows.export import check_target


class ExportHuggingFace(Callback):
    """Exports the model of a `VocabExpansionModule` at the end of `fit`, once, on rank zero.

    The folder loads with `AutoModelForCausalLM` and `AutoTokenizer` and needs nothing of this
    package.

    Args:
        path: The folder to write.
        overwrite: Whether an existing folder may be replaced, if it holds a model. What may not be
            replaced is refused at the start of the fit rather than at its end.

    Raises:
        MisconfigurationException: At the start of `fit`, if the module is of another kind.
        FileExistsError: At the start of `fit`, if the folder exists and may not be replaced.
    """

    def __init__(self, path: str, overwrite: bool = False) -> None:
        self.path = path
        self.overwrite = overwrite

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what could not be exported, before any work."""
        if stage != "fit":
            return
        if not isinstance(pl_module, VocabExpansionModule):
            raise MisconfigurationException(
                "ExportHuggingFace exports a VocabExpansionModule, got "
                f"{type(pl_module).__name__}; call lightning_vocab.rows.export_model yourself."
            )
        check_target(self.path, overwrite=self.overwrite)

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the folder."""
        assert isinstance(pl_module, VocabExpansionModule)
        if trainer.is_global_zero or pl_module.is_sharded:
            pl_module.export(self.path, overwrite=self.overwrite)
            rank_zero_info(f"Exported the model and its tokenizer to {self.path}")
