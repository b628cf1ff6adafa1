"""From text to a grown tokenizer and the folder that carries it."""

from lightning_vocab.vocabulary.expansion import NewToken, TokenKind, VocabularyExpansion

__all__ = ["NewToken", "TokenKind", "VocabularyExpansion"]
