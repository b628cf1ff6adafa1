"""How many bytes of text each token stands for, to count bytes where only tokens are at hand."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, pre_tokenizers
from transformers import PreTrainedTokenizerBase

from lightning_vocab.vocabulary.fingerprint import backend

_BYTE_TOKEN = re.compile("<0x[0-9A-F]{2}>")
_ALPHABET = frozenset(pre_tokenizers.ByteLevel.alphabet())


@dataclass(frozen=True)
class TokenBytes:
    """Bytes of the tokens of one tokenizer, inside a text.

    The sum over a text's tokens, less ``prefix``, is the size of the text in UTF-8, exactly where
    the tokenizer loses nothing: byte-level vocabularies, and those with byte fallback, except for a
    blank that a text begins with where the tokenizer drops it.

    Args:
        of_id: Bytes of each id, ``(num_ids,)``: 0 for the special tokens that stand around text.
        prefix: Bytes that the tokenizer puts in front of a text: 1 for the blank of SentencePiece.
    """

    of_id: npt.NDArray[np.int64]
    prefix: int


def token_bytes(tokenizer: PreTrainedTokenizerBase) -> TokenBytes:
    """Bytes of every token, by the tokenizer's own decoder.

    A byte-level token has as many bytes as characters, whole characters or not; a byte token such
    as ``<0xE0>`` is one byte; an added token is its content; any other is what it decodes to behind
    another token. Special tokens (start, end, padding, unknown …) are 0. Cost: one pass over the
    vocabulary, a fifth of a second for 150,000 tokens.

    Args:
        tokenizer: A tokenizer that runs on the tokenizers library.

    Raises:
        TypeError: If the tokenizer has no such backend.

    Example:
        >>> from lightning_vocab.vocabulary import load_tokenizer
        >>> from lightning_vocab.demo import resolve_base
        >>> tokenizer = load_tokenizer(resolve_base("demo"))
        >>> ids = tokenizer("Où est-il ?", add_special_tokens=False).input_ids
        >>> int(token_bytes(tokenizer).of_id[ids].sum()), len("Où est-il ?".encode())
        (12, 12)
    """
    own = backend(tokenizer)
    vocab = own.get_vocab(with_added_tokens=True)
    sizes = np.zeros(max(vocab.values()) + 1, np.int64)
    sizes[list(vocab.values())] = _sizes(own, list(vocab))
    for id, added in own.get_added_tokens_decoder().items():
        sizes[id] = len(added.content.encode())
    sizes[[id for id in tokenizer.all_special_ids if id < len(sizes)]] = 0
    first = own.encode("a", add_special_tokens=False).ids
    return TokenBytes(sizes, max(0, int(sizes[first].sum()) - 1))


def _sizes(tokenizer: Tokenizer, tokens: list[str]) -> list[int]:
    decoder = tokenizer.decoder
    if decoder is None:
        return [len(token.encode()) for token in tokens]
    if decoder.decode(["Ġa"]) == " a":  # one character a byte; other strings are read as they are
        return [
            len(token) if _ALPHABET.issuperset(token) else len(token.encode()) for token in tokens
        ]
    has_fallback = decoder.decode(["a", "<0x41>"]) == "aA"
    return [
        1
        if has_fallback and _BYTE_TOKEN.fullmatch(token)
        else len(decoder.decode(["a", token]).encode()) - 1
        for token in tokens
    ]
