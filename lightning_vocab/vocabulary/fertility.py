"""How many tokens a tokenizer needs for a text, before and after it has grown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy
import regex
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

WORD = regex.compile(r"\S*[\p{L}\p{N}]\S*")
"""A word: what stands between blanks and has a letter or a digit in it."""

_LETTERS = regex.compile(r"\p{L}+")
_LETTERS_WITHOUT_BLANKS = regex.compile(
    r"[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\p{Han}\p{Hiragana}\p{Katakana}&&\p{L}]+",
    regex.VERSION1,
)
_BATCH = 1000


@dataclass(frozen=True)
class TextSize:
    """How long a text is.

    Args:
        num_documents: Documents.
        num_bytes: Bytes in UTF-8.
        num_characters: Unicode code points.
        num_words: Strings between blanks that hold a letter or a digit. None where most letters
            belong to a script that sets no blanks between words (Thai, Lao, Khmer, Myanmar,
            Tibetan, Chinese characters, Kana): there such a string is a sentence.
    """

    num_documents: int
    num_bytes: int
    num_characters: int
    num_words: int | None


@dataclass(frozen=True)
class Fertility:
    """Tokens for a text, by word, character and byte.

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


@dataclass(frozen=True)
class FertilityComparison:
    """The same text cut by the base tokenizer and by the grown one.

    Args:
        before: Cut by the base tokenizer.
        after: Cut by the grown tokenizer.
        new_tokens_in_use_share: Share of the new tokens that occur in the text at least once; None
            where there is no new token.
    """

    before: Fertility
    after: Fertility
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
        texts: Documents, read once and a thousand at a time.
        new_ids: Ids of the new tokens.

    Raises:
        ValueError: If there is no text.
    """
    is_used = numpy.zeros(max(len(tokenizer), *new_ids, 0) + 1, dtype=bool)
    num_tokens_before = num_tokens_after = 0
    counter = _SizeCounter()
    for batch in _batches(texts):
        counter.add(batch)
        num_tokens_before += sum(map(len, encode_batch(base_tokenizer, batch)))
        for ids in encode_batch(tokenizer, batch):
            num_tokens_after += len(ids)
            is_used[ids] = True
    size = counter.size()
    return FertilityComparison(
        before=Fertility(size, num_tokens_before),
        after=Fertility(size, num_tokens_after),
        new_tokens_in_use_share=_share(is_used, new_ids),
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


class _SizeCounter:
    def __init__(self) -> None:
        self.num_documents = self.num_bytes = self.num_characters = self.num_words = 0
        self.num_letters = self.num_letters_without_blanks = 0

    def add(self, texts: list[str]) -> None:
        text = "\n".join(texts)  # a line break is a blank: no word reaches across it
        self.num_documents += len(texts)
        self.num_bytes += len(text.encode()) - (len(texts) - 1)
        self.num_characters += len(text) - (len(texts) - 1)
        self.num_words += len(WORD.findall(text))
        self.num_letters += sum(map(len, _LETTERS.findall(text)))
        self.num_letters_without_blanks += sum(map(len, _LETTERS_WITHOUT_BLANKS.findall(text)))

    def size(self) -> TextSize:
        if not self.num_bytes:
            raise ValueError("Expected text to measure the fertility on, got none.")
        has_words = self.num_letters_without_blanks <= self.num_letters / 2
        num_words = self.num_words if has_words else None
        return TextSize(self.num_documents, self.num_bytes, self.num_characters, num_words)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(texts)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


def _share(is_used: NDArray[numpy.bool_], new_ids: Sequence[int]) -> float | None:
    return float(is_used[list(new_ids)].mean()) if new_ids else None


def _to_dict(fertility: Fertility, block_size: int) -> dict[str, Any]:
    return {
        "num_tokens": fertility.num_tokens,
        "tokens_per_word": fertility.tokens_per_word,
        "tokens_per_character": fertility.tokens_per_character,
        "tokens_per_byte": fertility.tokens_per_byte,
        "effective_context_bytes": fertility.effective_context_bytes(block_size),
    }
