"""Auxiliary spaces: vectors of tokens in which nearness means likeness."""

from lightning_vocab.initializers.spaces.aligned import AlignedSpace
from lightning_vocab.initializers.spaces.base import AuxiliarySpace, TokenVectors
from lightning_vocab.initializers.spaces.base_model import BaseModelSpace
from lightning_vocab.initializers.spaces.cache import SavedSpace
from lightning_vocab.initializers.spaces.encoder import EncoderSpace
from lightning_vocab.initializers.spaces.fasttext import FastTextSpace

__all__ = [
    "AlignedSpace",
    "AuxiliarySpace",
    "BaseModelSpace",
    "EncoderSpace",
    "FastTextSpace",
    "SavedSpace",
    "TokenVectors",
]
