"""Continued BPE as it is written down: slow, in plain Python, sharing no code with the package."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import regex
from transformers import PreTrainedTokenizerBase

# GPT-2's pre-tokenizer and its byte alphabet.
_WORD = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_SHIFTED = [byte for byte in range(256) if byte not in _PRINTABLE]
ALPHABET = {byte: chr(byte) for byte in _PRINTABLE} | {
    byte: chr(256 + k) for k, byte in enumerate(_SHIFTED)
}


def continued(
    base: PreTrainedTokenizerBase, texts: Iterable[str], num_merges: int
) -> list[tuple[str, str]]:
    """Merges to append to a base of GPT-2's kind; of equally frequent pairs the lower ids win."""
    model = json.loads(base.backend_tokenizer.to_str())["model"]
    order: dict[str, int] = dict(model["vocab"])
    words = Counter(word for text in texts for word in _WORD.findall(text))
    cut: list[tuple[list[str], int]] = []
    for word, count in words.items():
        symbols = [ALPHABET[byte] for byte in word.encode()]
        for left, right in model["merges"]:
            symbols = _merged(symbols, left, right)
        cut.append((symbols, count))
    merges: list[tuple[str, str]] = []
    while len(merges) < num_merges:
        pairs: Counter[tuple[str, str]] = Counter()
        for symbols, count in cut:
            for pair in pairwise(symbols):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], order[pair[0]], order[pair[1]]))
        merges.append(best)
        order["".join(best)] = len(order)
        cut = [(_merged(symbols, *best), count) for symbols, count in cut]
    return merges


def _merged(symbols: list[str], left: str, right: str) -> list[str]:
    result: list[str] = []
    at = 0
    while at < len(symbols):
        if symbols[at : at + 2] == [left, right]:
            result.append(left + right)
            at += 2
        else:
            result.append(symbols[at])
            at += 1
    return result
