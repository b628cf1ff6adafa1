"""How many words are one token: every distinct word is encoded once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import regex
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from lightning_vocab.vocabulary.fingerprint import backend, without_limits
from lightning_vocab.vocabulary.measuring.token_use import unknown_id

_CORE = regex.compile(r"[\p{L}\p{N}](?:.*[\p{L}\p{M}\p{N}])?", regex.DOTALL)
_BATCH = 20_000


def word_cores(words: Mapping[str, int]) -> Counter[str]:
    """Words without the signs around them, and how often each occurs.

    Args:
        words: Occurrences of each string between blanks; what holds no letter and no digit is left
            out.

    Example:
        >>> sorted(word_cores({"(it's": 2, "it's.": 1, "--": 5}).items())
        [("it's", 3)]
    """
    cores: Counter[str] = Counter()
    for word, count in words.items():
        found = _CORE.search(word)
        if found is not None:
            cores[found[0]] += count
    return cores


def words_in_one_token(
    tokenizer: PreTrainedTokenizerBase, cores: Mapping[str, int], *, after_blank: bool = True
) -> int | None:
    """How many words are one token, and not the unknown one, each as often as it occurs.

    A word is encoded as it stands inside a text: after a blank, whether the blank belongs to the
    token (``Ġthe``, ``▁the``) or not, or, where a splitter made the words, right after the word
    before. For tokenizers that put a blank before every text themselves, that is found out by
    trial.

    Args:
        tokenizer: The tokenizer.
        cores: What `word_cores` returned.
        after_blank: Whether a blank stands before a word.

    Returns:
        The number; None if a word cannot be shown to this tokenizer as it stands inside a text.
    """
    tokenizer_ = backend(tokenizer)
    with without_limits(tokenizer_):
        lead = _lead(tokenizer_, after_blank=after_blank)
        if lead is None:
            return None
        num_lead_tokens = len(_ids(tokenizer_, lead)) if lead.strip(" ") else 0
        words = list(cores)
        counts = np.fromiter(cores.values(), np.int64, len(cores))
        is_one = np.zeros(len(words), bool)
        unknown = unknown_id(tokenizer)
        for start in range(0, len(words), _BATCH):
            batch = [lead + word for word in words[start : start + _BATCH]]
            encoded = tokenizer_.encode_batch_fast(batch, add_special_tokens=False)
            is_one[start : start + len(batch)] = [
                len(encoding) == num_lead_tokens + 1 and encoding.ids[-1] != unknown
                for encoding in encoded
            ]
    return int(counts[is_one].sum())


def _lead(tokenizer: Tokenizer, *, after_blank: bool) -> str | None:
    """What to write before a word so that it is cut as it is inside a text."""
    if after_blank:
        inside = _ids(tokenizer, "b a")[len(_ids(tokenizer, "b")) :]
        return next((lead for lead in ("", " ") if _ids(tokenizer, f"{lead}a") == inside), None)
    for lead in ("", "\n"):
        ids, before = _ids(tokenizer, f"{lead}a"), _ids(tokenizer, lead)
        # A lead that the tokenizer takes for a blank would be a blank before the word.
        is_kept = tokenizer.decode(before, skip_special_tokens=False).strip(" ") == lead
        rest = [tokenizer.id_to_token(id_) for id_ in ids[len(before) :]]
        if is_kept and ids[: len(before)] == before and rest == ["a"]:
            return lead
    return None


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids
