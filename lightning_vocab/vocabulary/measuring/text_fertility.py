"""The figures of one tokenizer on one text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lightning_vocab.vocabulary.measuring.text_size import TextSize
from lightning_vocab.vocabulary.measuring.token_use import TokenUse

RATIOS = {
    "tokens_per_byte": "bytes",
    "tokens_per_character": "characters",
    "tokens_per_grapheme": "graphemes",
    "tokens_per_word": "words",
}
"""The unit of each ratio; all are better when lower."""


@dataclass(frozen=True)
class TextFertility:
    """Tokens for a text, by word, grapheme, character and byte.

    Args:
        size: The text's size.
        num_tokens: Tokens of the text alone, without start and end tokens.
    """

    size: TextSize
    num_tokens: int

    @property
    def tokens_per_word(self) -> float | None:
        """Tokens by word; the usual "fertility" (Ács 2019). None where words are not told apart."""
        return self.num_tokens / self.size.num_words if self.size.num_words else None

    @property
    def tokens_per_grapheme(self) -> float | None:
        """Tokens by grapheme; None where graphemes were not counted."""
        return self.num_tokens / self.size.num_graphemes if self.size.num_graphemes else None

    @property
    def tokens_per_character(self) -> float:
        """Tokens by Unicode code point."""
        return self.num_tokens / self.size.num_characters

    @property
    def tokens_per_byte(self) -> float:
        """Tokens by byte of UTF-8: comparable between scripts, and never undefined."""
        return self.num_tokens / self.size.num_bytes

    def effective_context_bytes(self, block_size: int) -> float:
        """Bytes of such text that a context of ``block_size`` tokens holds."""
        return block_size / self.tokens_per_byte


def fertility_figures(
    fertility: TextFertility, use: TokenUse, one_token_words: tuple[int, int] | None
) -> dict[str, Any]:
    """The figures of one tokenizer on one text; None where one does not apply.

    Args:
        fertility: Tokens and the text's size.
        use: What the tokens are.
        one_token_words: Words in one token and words looked at.
    """
    num_in_one, num_words = one_token_words or (0, 0)
    return {
        "num_tokens": fertility.num_tokens,
        **{ratio: getattr(fertility, ratio) for ratio in RATIOS},
        "words_in_one_token_share": num_in_one / num_words if num_words else None,
        "unknown_share": use.num_unknown / use.num_tokens,
        "byte_fallback_share": use.num_byte_fallback / use.num_tokens,
        "partial_character_share": use.num_partial / use.num_tokens,
        "vocabulary_used_share": use.num_types_used / use.num_types,
        "renyi_efficiency": use.renyi_efficiency,
    }
