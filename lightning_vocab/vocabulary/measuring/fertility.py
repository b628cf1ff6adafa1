"""How many tokens a tokenizer needs for a text, before and after it has grown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy
from transformers import PreTrainedTokenizerBase

from lightning_vocab.vocabulary.measuring.measured_text import measure_text
from lightning_vocab.vocabulary.measuring.text_fertility import TextFertility


@dataclass(frozen=True)
class FertilityComparison:
    """The same text cut by the base tokenizer and by the grown one.

    Args:
        before: Cut by the base tokenizer.
        after: Cut by the grown tokenizer.
        new_tokens_in_use_share: Share of the new tokens that occur in the text at least once; None
            where there is no new token.
    """

    before: TextFertility
    after: TextFertility
    new_tokens_in_use_share: float | None

    def to_dict(self, block_size: int) -> dict[str, Any]:
        """The comparison as plain JSON values.

        Args:
            block_size: Tokens of a context, for the effective context in bytes.
        """
        return {
            **asdict(self.before.size),
            "before": _to_dict(self.before, block_size),
            "after": _to_dict(self.after, block_size),
            "new_tokens_in_use_share": self.new_tokens_in_use_share,
        }


def compare_fertility(
    base_tokenizer: PreTrainedTokenizerBase,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
    new_ids: Sequence[int] = (),
) -> FertilityComparison:
    """Cut ``texts`` with both tokenizers, in one pass over the texts.

    Args:
        base_tokenizer: The tokenizer before it grew.
        tokenizer: The grown tokenizer.
        texts: Documents, read once and a batch at a time.
        new_ids: Ids of the new tokens.

    Raises:
        ValueError: If there is no text, or a document holds a lone surrogate.
    """
    text = measure_text(
        {"before": base_tokenizer, "after": tokenizer}, texts, word_tokens=False, num_resamples=0
    )
    used = numpy.flatnonzero(text.counts["after"])
    return FertilityComparison(
        before=text.fertility("before"),
        after=text.fertility("after"),
        new_tokens_in_use_share=float(numpy.isin(new_ids, used).mean()) if new_ids else None,
    )


def encode_batch(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """The ids of each text alone, without start and end tokens, in one call of the Rust backend."""
    encoded = tokenizer(
        texts,
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # a document may be longer than the model's context
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def _to_dict(fertility: TextFertility, block_size: int) -> dict[str, Any]:
    return {
        "num_tokens": fertility.num_tokens,
        "tokens_per_word": fertility.tokens_per_word,
        "tokens_per_grapheme": fertility.tokens_per_grapheme,
        "tokens_per_character": fertility.tokens_per_character,
        "tokens_per_byte": fertility.tokens_per_byte,
        "effective_context_bytes": fertility.effective_context_bytes(block_size),
    }
