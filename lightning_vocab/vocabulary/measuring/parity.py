"""Parity: what the same content costs in one language and in another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lightning_vocab.functional.bootstrap import ratio_interval
from lightning_vocab.vocabulary.measuring.measured_text import MeasuredText


@dataclass(frozen=True)
class Parity:
    """Tokens of one text over tokens of its translation; 1 is even, above 1 the text pays more.

    Args:
        tokens_ratio: Tokens of the text over tokens of the reference.
        interval: Its 95 % bootstrap interval over aligned rows; None for fewer than two rows.
    """

    tokens_ratio: float
    interval: tuple[float, float] | None


def parity(text: MeasuredText, reference: MeasuredText, name: str) -> Parity:
    """Parity of one tokenizer between two aligned texts.

    ``tokens(text) / tokens(reference)`` over all rows (the "tokenization premium" of Petrov et al.
    2023, arXiv 2305.15425).

    Args:
        text: One text, measured.
        reference: Its translation row by row, measured with the same seed: then a resample draws
            the same rows of both.
        name: Name of the tokenizer.

    Raises:
        ValueError: If the texts have different numbers of rows, or the reference no token.
    """
    check_aligned({"text": text.num_documents, "reference": reference.num_documents})
    num_tokens, num_reference = (int(each.counts[name].sum()) for each in (text, reference))
    if not num_reference:
        raise ValueError(f"The reference text has no token by {name!r}: nothing to compare with.")
    interval = None
    if text.num_documents > 1:
        tokens = text.resampled_tokens(name), reference.resampled_tokens(name)
        interval = ratio_interval(*tokens)
    return Parity(num_tokens / num_reference, interval)


def check_aligned(num_rows: Mapping[str, int]) -> None:
    """Refuse texts that cannot be aligned row by row.

    Args:
        num_rows: Number of rows of each text.

    Raises:
        ValueError: If they differ; the message names every text with its rows.
    """
    if len(set(num_rows.values())) > 1:
        counted = ", ".join(f"{name} has {number:,}" for name, number in num_rows.items())
        raise ValueError(
            f"Aligned texts need equally many rows, row by row of one content: {counted}."
        )
