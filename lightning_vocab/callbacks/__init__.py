"""Callbacks for a Trainer: which parameters train, when, how the new rows do, and what came out."""

from lightning_vocab.callbacks.contract import ContractCheck
from lightning_vocab.callbacks.export import ExportHuggingFace
from lightning_vocab.callbacks.freezing import FreezeBackbone, UnfreezeAt
from lightning_vocab.callbacks.grad_mask import GradMaskNewRows
from lightning_vocab.callbacks.grounding_report import GroundingReport
from lightning_vocab.callbacks.new_token_usage import NewTokenUsage
from lightning_vocab.callbacks.report import ExpansionReport
from lightning_vocab.callbacks.spectrum import EmbeddingCollapseWarning, EmbeddingSpectrumMonitor
from lightning_vocab.callbacks.throughput import TextThroughputMonitor
from lightning_vocab.callbacks.token_frequency import NewTokenFrequency

__all__ = [
    "ContractCheck",
    "EmbeddingCollapseWarning",
    "EmbeddingSpectrumMonitor",
    "ExpansionReport",
    "ExportHuggingFace",
    "FreezeBackbone",
    "GradMaskNewRows",
    "GroundingReport",
    "NewTokenFrequency",
    "NewTokenUsage",
    "TextThroughputMonitor",
    "UnfreezeAt",
]
