"""How a text uses a vocabulary: unknown and byte tokens, and how evenly."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedTokenizerBase

from lightning_vocab.functional.renyi import renyi_efficiency
from lightning_vocab.vocabulary.fingerprint import backend

Counts = npt.NDArray[np.int64]

_BYTE_TOKEN = re.compile("<0x[0-9A-F]{2}>")
_REPLACEMENT, _SPELLED_REPLACEMENT = "\ufffd", "ï¿½"  # the latter as byte-level tokens spell it


@dataclass(frozen=True)
class TokenUse:
    """What the tokens of a text are.

    Args:
        num_tokens: Tokens of the text.
        num_types: Tokens of the vocabulary.
        num_types_used: Tokens of the vocabulary that occur.
        num_unknown: Occurrences of the unknown token.
        num_byte_fallback: Occurrences of the tokens ``<0x00>`` to ``<0xFF>``, in which a
            vocabulary of characters writes the characters it lacks.
        num_partial: Occurrences of tokens of a byte-level vocabulary that are not whole characters:
            its counterpart to byte fallback.
        renyi_efficiency: Rényi efficiency of order 2.5.
    """

    num_tokens: int
    num_types: int
    num_types_used: int
    num_unknown: int
    num_byte_fallback: int
    num_partial: int
    renyi_efficiency: float


def unknown_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id that stands for what the vocabulary cannot write; None where it can write all.

    A byte-level vocabulary can; what such a tokenizer names its unknown token is its end token.
    """
    return None if _is_byte_level(tokenizer) else tokenizer.unk_token_id


def token_use(tokenizer: PreTrainedTokenizerBase, counts: Counts) -> TokenUse:
    """What the tokens of a text are, told by the tokenizer's own decoder.

    Args:
        tokenizer: The tokenizer.
        counts: Occurrences of each id in the text, ``(num_ids,)``.

    Raises:
        ValueError: If there is no token.
    """
    tokenizer_ = backend(tokenizer)
    decoder = tokenizer_.decoder
    used = np.flatnonzero(counts)
    tokens = [tokenizer_.id_to_token(id_) or "" for id_ in used.tolist()]
    is_byte_level = _is_byte_level(tokenizer)
    has_fallback = decoder is not None and decoder.decode(["a", "<0x41>"]) == "aA"
    is_partial = [is_byte_level and _is_partial(token, decoder.decode([token])) for token in tokens]
    is_fallback = [has_fallback and _BYTE_TOKEN.fullmatch(token) is not None for token in tokens]
    unknown = unknown_id(tokenizer)
    num_types = len(tokenizer)
    return TokenUse(
        num_tokens=int(counts.sum()),
        num_types=num_types,
        num_types_used=len(used),
        num_unknown=0 if unknown is None else int(counts[unknown]),
        num_byte_fallback=int(counts[used][is_fallback].sum()),
        num_partial=int(counts[used][is_partial].sum()),
        renyi_efficiency=renyi_efficiency(torch.from_numpy(counts), num_types),
    )


def _is_byte_level(tokenizer: PreTrainedTokenizerBase) -> bool:
    decoder = backend(tokenizer).decoder
    return decoder is not None and bool(decoder.decode(["Ġa"]) == " a")


def _is_partial(token: str, decoded: str) -> bool:
    """Whether bytes of the token are no whole characters; U+FFFD itself is a whole one."""
    return decoded.count(_REPLACEMENT) > token.count(_SPELLED_REPLACEMENT)
