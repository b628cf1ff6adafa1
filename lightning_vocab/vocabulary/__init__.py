"""From text to a grown tokenizer and the folder that carries it."""

from lightning_vocab.vocabulary.expansion import (
    ExpandedTokenizer,
    NewToken,
    TokenKind,
    VocabularyExpansion,
)

__all__ = ["ExpandedTokenizer", "NewToken", "TokenKind", "VocabularyExpansion"]
