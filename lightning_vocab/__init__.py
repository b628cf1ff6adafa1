"""Grow the vocabulary of a pretrained causal language model and teach the model to use it."""

from lightning_vocab.callbacks import (
    ContractCheck,
    EmbeddingSpectrumMonitor,
    ExpansionReport,
    ExportHuggingFace,
    FreezeBackbone,
    GradMaskNewRows,
    NewTokenFrequency,
    UnfreezeAt,
)
from lightning_vocab.cli import VocabCLI
from lightning_vocab.contract import ContractInputs, Finding, check_contract
from lightning_vocab.data import TextSource
from lightning_vocab.datamodule import VocabDataModule
from lightning_vocab.initializers import (
    Initializer,
    Keep,
    Mean,
    Mixture,
    Normal,
    Separate,
    SubwordMean,
    Zeros,
)
from lightning_vocab.metrics import BitsPerByte, Fertility
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.rows import expand_model, export_model
from lightning_vocab.schedules import WarmupCosine
from lightning_vocab.vocabulary import (
    AddTokens,
    ContinuedBPE,
    ContinuedUnigram,
    ExpandedTokenizer,
    Extender,
    MergeTokenizer,
    ReuseSlots,
    VocabularyExpansion,
    find_slots,
    load_expansion,
    save_expansion,
    write_sentencepiece,
)

__all__ = [
    "AddTokens",
    "BitsPerByte",
    "ContinuedBPE",
    "ContinuedUnigram",
    "ContractCheck",
    "ContractInputs",
    "EmbeddingSpectrumMonitor",
    "ExpandedTokenizer",
    "ExpansionReport",
    "ExportHuggingFace",
    "Extender",
    "Fertility",
    "Finding",
    "FreezeBackbone",
    "GradMaskNewRows",
    "Initializer",
    "Keep",
    "Mean",
    "MergeTokenizer",
    "Mixture",
    "NewTokenFrequency",
    "Normal",
    "ReuseSlots",
    "Separate",
    "SubwordMean",
    "TextSource",
    "UnfreezeAt",
    "VocabCLI",
    "VocabDataModule",
    "VocabExpansionModule",
    "VocabularyExpansion",
    "WarmupCosine",
    "Zeros",
    "check_contract",
    "expand_model",
    "export_model",
    "find_slots",
    "load_expansion",
    "save_expansion",
    "write_sentencepiece",
]
