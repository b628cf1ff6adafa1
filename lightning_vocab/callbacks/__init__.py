"""Callbacks for a Trainer: which parameters train, and when."""

from lightning_vocab.callbacks.freezing import FreezeBackbone, UnfreezeAt
from lightning_vocab.callbacks.grad_mask import GradMaskNewRows

__all__ = ["FreezeBackbone", "GradMaskNewRows", "UnfreezeAt"]
