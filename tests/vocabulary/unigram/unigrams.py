"""Unigram tokenizers small enough to be built in memory."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

_PIECES = {
    "▁": -2.5,
    **{letter: -4.0 - k / 10 for k, letter in enumerate("etaoinshrdlcumwfgypbvkxqjz.,")},
    "▁the": -3.1,
    "▁a": -3.6,
    "▁and": -4.2,
    "in": -4.9,
    "ing": -5.3,
    "er": -5.0,
    "an": -5.6,
    "▁in": -4.4,
    "ra": -6.1,
    "▁z": -8.0,
}


def make_unigram_tokenizer(
    pieces: Mapping[str, float] = _PIECES, *, byte_fallback: bool = False, split: bool = True
) -> PreTrainedTokenizerFast:
    """A tokenizer of the T5 kind, or with byte fallback; `<pad>`, `</s>` and `<unk>` come first.

    Args:
        pieces: Pieces and scores, which are stored in single precision.
        byte_fallback: Whether unknown characters are spelled in byte tokens.
        split: Whether text is cut into words before the model sees it.
    """
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    if byte_fallback:
        vocab += [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    vocab += [(piece, float(np.float32(score))) for piece, score in pieces.items()]
    tokenizer = Tokenizer(models.Unigram(vocab, 2, byte_fallback))
    tokenizer.normalizer = normalizers.NFKC()
    blanks = pre_tokenizers.Metaspace("▁", prepend_scheme="always", split=split)
    tokenizer.pre_tokenizer = blanks
    if split:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), blanks]
        )
    tokenizer.decoder = decoders.Metaspace("▁", prepend_scheme="always", split=split)
    if byte_fallback:
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
