"""What added tokens do to text around them: the promises that only merges can keep."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Callable, Sequence

from tokenizers import Tokenizer

from lightning_vocab.vocabulary.backend_state import BackendState
from lightning_vocab.vocabulary.fingerprint import backend, without_limits
from lightning_vocab.vocabulary.wording import some

_IN_TEXT: tuple[Callable[[str], str], ...] = ("a{}b".format, "a {} b".format)
"""Texts in which a token stands inside a word and as a word of its own."""


def check_decoding(base: BackendState, grown: BackendState, tokens: Sequence[str]) -> list[str]:
    """The tokens around which the grown tokenizer decodes text otherwise than the base.

    A tokenizer whose normalizer puts a blank in front of every stretch of text (Phi-3) puts one
    behind every added token too. No setting of an added token avoids it: matched after the
    normalizer (``normalized=True``) the token would be looked for with that blank in front, and no
    longer be found inside a text.

    Args:
        base: State of the base tokenizer.
        grown: State of the tokenizer with the tokens added.
        tokens: The texts of the added tokens.

    Raises:
        ValueError: If the decoder makes other text of a token alone: a byte-level one reads ``é``
            as byte 0xE9.
    """
    old, new = backend(base.tokenizer), backend(grown.tokenizer)
    with without_limits(old), without_limits(new):
        if broken := _decoded_otherwise(old, new, tokens):
            read = _decoded(new, broken[:1])[0]
            raise ValueError(
                f"{len(broken)} tokens to add cannot be decoded again, such as {broken[0]!r}, of "
                f"which the base's decoder makes {read!r}. Choose other texts for {broken[:5]}, "
                "such as ones of ASCII characters."
            )
        changed = [set(_decoded_otherwise(old, new, list(map(put, tokens)))) for put in _IN_TEXT]
    return [
        token
        for token in tokens
        if any(put(token) in texts for put, texts in zip(_IN_TEXT, changed, strict=True))
    ]


def bare_words(tokens: Sequence[str]) -> list[str]:
    """The tokens that are a word or part of one: letters and their marks, blanks around them.

    Args:
        tokens: The texts of the added tokens.
    """
    return [
        token
        for token in tokens
        if all(unicodedata.category(char)[0] in "LM" for char in token.strip())
    ]


def warn_about(changed: Sequence[str], words: Sequence[str], stacklevel: int) -> None:
    """Say which tokens do not keep which promise.

    Args:
        changed: What `check_decoding` found.
        words: What `bare_words` found.
        stacklevel: As for `warnings.warn`, counted from the caller.
    """
    if changed:
        warnings.warn(
            f"Text around {len(changed)} added tokens is decoded otherwise than by the base, "
            f"which cuts or pads text anew behind an added token (often a blank more): "
            f"{some(changed)}.",
            stacklevel=stacklevel + 1,
        )
    if words:
        warnings.warn(
            f"{len(words)} added tokens are plain words: {some(words)}. Added tokens are matched "
            "inside longer words, before text is cut into words, so other texts can get more "
            "tokens than before. Use ContinuedBPE for words.",
            stacklevel=stacklevel + 1,
        )


def _decoded_otherwise(old: Tokenizer, new: Tokenizer, texts: Sequence[str]) -> list[str]:
    """Texts that the grown tokenizer gives back neither as they are nor as the base does."""
    rows = zip(texts, _decoded(old, texts), _decoded(new, texts), strict=True)
    return [text for text, expected, found in rows if found not in (text, expected)]


def _decoded(tokenizer: Tokenizer, texts: Sequence[str]) -> list[str]:
    encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    found: list[str] = tokenizer.decode_batch(
        [encoding.ids for encoding in encodings], skip_special_tokens=False
    )
    return found
