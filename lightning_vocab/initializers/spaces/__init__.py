"""Auxiliary spaces: vectors of tokens in which nearness means likeness."""

from lightning_vocab.initializers.spaces.base import AuxiliarySpace, TokenVectors

__all__ = ["AuxiliarySpace", "TokenVectors"]
