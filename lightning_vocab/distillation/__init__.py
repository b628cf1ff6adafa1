"""Token distillation: new rows learn to do in one token what their pieces did in several."""

from lightning_vocab.distillation.datamodule import DistillationDataModule
from lightning_vocab.distillation.module import DistillationModule

__all__ = ["DistillationDataModule", "DistillationModule"]
