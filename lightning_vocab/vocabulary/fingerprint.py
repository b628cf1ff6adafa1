"""A fingerprint that tells whether two tokenizers cut and name text alike."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

_NO_LIMITS = '"truncation":null,"padding":null'


def backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """The `tokenizers.Tokenizer` behind a tokenizer.

    Args:
        tokenizer: A tokenizer as `AutoTokenizer` returns it.

    Raises:
        TypeError: If the tokenizer has none (a pure Python one).
    """
    found = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(found, Tokenizer):
        raise TypeError(
            f"{type(tokenizer).__name__} has no `tokenizers` backend: only tokenizers that run on "
            "the tokenizers library can be grown. Convert it to a tokenizer.json first."
        )
    return found


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 (hex) of the backend's JSON, the special-token map and the chat template.

    Truncation and padding are left out: they are settings of a call, and `transformers` writes them
    into the backend whenever a batch is encoded.

    Args:
        tokenizer: A tokenizer that runs on the tokenizers library.

    Raises:
        TypeError: If the tokenizer has no such backend.
    """
    return fingerprint_of(canonical_text(backend(tokenizer)), tokenizer)


def fingerprint_of(text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """`fingerprint` for callers that hold the `canonical_text` already.

    Args:
        text: What `canonical_text` returned for the tokenizer's backend.
        tokenizer: The tokenizer, for its special-token map and its chat template.
    """
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    rest = json.dumps([special, tokenizer.chat_template], sort_keys=True)
    return hashlib.sha256(f"{text}\n{rest}".encode()).hexdigest()


@contextmanager
def without_limits(tokenizer: Tokenizer) -> Iterator[None]:
    """Switch truncation and padding off for a while: a call with ``truncation=True`` leaves it on.

    Args:
        tokenizer: The backend.
    """
    truncation, padding = tokenizer.truncation, tokenizer.padding
    tokenizer.no_truncation()
    tokenizer.no_padding()
    try:
        yield
    finally:
        if truncation is not None:
            tokenizer.enable_truncation(**truncation)
        if padding is not None:
            tokenizer.enable_padding(**padding)


def canonical_text(tokenizer: Tokenizer) -> str:
    """The backend's JSON without truncation and padding.

    The library writes the vocabulary in order of id and the merges in order of rank, so the text is
    the same for the same tokenizer.
    """
    text: str = tokenizer.to_str()
    if _NO_LIMITS in text[:200]:
        return text
    unlimited = Tokenizer.from_str(text)
    unlimited.no_truncation()
    unlimited.no_padding()
    return str(unlimited.to_str())
