"""Grow the vocabulary of a pretrained causal language model and teach the model to use it."""

from lightning_vocab.callbacks import (
    EmbeddingSpectrumMonitor,
    ExpansionReport,
    ExportHuggingFace,
    FreezeBackbone,
    GradMaskNewRows,
    UnfreezeAt,
)
from lightning_vocab.cli import VocabCLI
from lightning_vocab.data import TextSource
from lightning_vocab.datamodule import VocabDataModule
from lightning_vocab.initializers import Initializer, Mean, Normal, SubwordMean
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.rows import expand_model, export_model
from lightning_vocab.schedules import WarmupCosine
from lightning_vocab.vocabulary import (
    AddTokens,
    ContinuedBPE,
    ExpandedTokenizer,
    Extender,
    VocabularyExpansion,
    load_expansion,
    save_expansion,
)

__all__ = [
    "AddTokens",
    "ContinuedBPE",
    "EmbeddingSpectrumMonitor",
    "ExpandedTokenizer",
    "ExpansionReport",
    "ExportHuggingFace",
    "Extender",
    "FreezeBackbone",
    "GradMaskNewRows",
    "Initializer",
    "Mean",
    "Normal",
    "SubwordMean",
    "TextSource",
    "UnfreezeAt",
    "VocabCLI",
    "VocabDataModule",
    "VocabExpansionModule",
    "VocabularyExpansion",
    "WarmupCosine",
    "expand_model",
    "export_model",
    "load_expansion",
    "save_expansion",
]
