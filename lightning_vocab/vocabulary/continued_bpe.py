"""Continued BPE: new merges behind those of the base, learned from text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase
from typing_extensions import override

from lightning_vocab.vocabulary.backend_state import read_state
from lightning_vocab.vocabulary.bpe_layout import BpeLayout, read_layout
from lightning_vocab.vocabulary.characters import WANTED, check_scripts, script_table
from lightning_vocab.vocabulary.corpus import batches
from lightning_vocab.vocabulary.describe import describe_states, rows_of_base
from lightning_vocab.vocabulary.expansion import ExpandedTokenizer
from lightning_vocab.vocabulary.extender import Extender
from lightning_vocab.vocabulary.fingerprint import backend, without_limits
from lightning_vocab.vocabulary.growth import grow
from lightning_vocab.vocabulary.merge_training import Merge, MergeTraining
from lightning_vocab.vocabulary.progress import Progress
from lightning_vocab.vocabulary.segmentation import Segmenter
from lightning_vocab.vocabulary.spool import Spool
from lightning_vocab.vocabulary.units import MAX_UNITS


class ContinuedBPE(Extender):
    """Continues the merges of a BPE tokenizer on new text; nothing old changes.

    Works on byte-level BPE (GPT-2, Qwen, Llama 3) and on SentencePiece-type BPE with byte fallback
    (Llama 2, Phi-3). Merges are only appended, so no text ever gets more tokens than before, and
    every new token can be produced. Where the base writes characters in byte tokens, the frequent
    ones of the text become tokens first and count as new tokens too.

    The text is encoded once and kept in a temporary file; memory holds counts of words.

    Args:
        num_new_tokens: Number of tokens to add; exactly as many are added, or an error names the
            number that is possible.
        min_frequency: Smallest number of times that a pair must stand in the text to be merged.
        max_token_length: Longest new token, in characters.
        scripts: Unicode scripts, such as Thai, whose words are learned from: words with a character
            of these scripts and no letter of another. All words if not given.
        character_coverage: Share of the characters missing from the base, by occurrence, that
            become tokens where the base has byte fallback. Rarer ones stay in byte tokens.
        progress: Whether a progress bar is shown; if not given, where stderr is a terminal.

    Raises:
        TypeError: If a number is of another type.
        ValueError: If a number is out of range or a script is unknown.

    Example:
        >>> from tests.conftest import make_tokenizer
        >>> extender = ContinuedBPE(num_new_tokens=2)
        >>> grown = extender.extend(make_tokenizer(), ["two cats and two tomcats"])
        >>> [token.surface for token in grown.expansion.tokens]
        ['wo', 'cats']
    """

    def __init__(
        self,
        num_new_tokens: int,
        min_frequency: int = 2,
        max_token_length: int = 32,
        scripts: Sequence[str] | None = None,
        character_coverage: float = 0.9995,
        progress: bool | None = None,
    ) -> None:
        for name, value, least in (
            ("num_new_tokens", num_new_tokens, 1),
            ("min_frequency", min_frequency, 1),
            ("max_token_length", max_token_length, 1),
        ):
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be a whole number, got {value!r}.")
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}.")
        if not isinstance(character_coverage, int | float) or isinstance(character_coverage, bool):
            raise TypeError(f"character_coverage must be a number, got {character_coverage!r}.")
        if not 0.0 <= character_coverage <= 1.0:
            raise ValueError(f"character_coverage must be from 0 to 1, got {character_coverage}.")
        self.num_new_tokens = num_new_tokens
        self.min_frequency = min_frequency
        self.max_token_length = max_token_length
        self.scripts = check_scripts(scripts)
        self.character_coverage = character_coverage
        self.progress = progress

    @override
    def arguments(self) -> dict[str, Any]:
        return {
            "num_new_tokens": self.num_new_tokens,
            "min_frequency": self.min_frequency,
            "max_token_length": self.max_token_length,
            "scripts": list(self.scripts) or None,
            "character_coverage": self.character_coverage,
        }

    @override
    def extend(
        self,
        tokenizer: PreTrainedTokenizerBase,
        texts: Iterable[str],
        *,
        base_rows: int | None = None,
    ) -> ExpandedTokenizer:
        """The tokenizer with ``num_new_tokens`` tokens more, and its manifest.

        Args:
            tokenizer: The base tokenizer.
            texts: Documents to learn from; a one-shot iterable will do.
            base_rows: Height of the base model's embedding matrix, ``len(tokenizer)`` if not given.

        Raises:
            TypeError: If a document is not a string.
            ValueError: If the tokenizer is of another kind, a document holds a lone surrogate,
                there is no text, or fewer tokens than wanted are possible.
        """
        base = read_state(tokenizer)
        rows_of_base(base, base_rows)
        layout = read_layout(base)
        with Progress(self.progress) as progress, Spool() as spool:
            segmenter = Segmenter(layout, self.scripts)
            with without_limits(backend(tokenizer)):
                for batch in batches(texts):
                    spool.write(segmenter.words(batch))
                    progress.advance(len(batch))
            progress.phase("learning merges")
            characters = self._characters(layout, segmenter.character_counts)
            merges = self._merges(layout, segmenter, spool, characters)
        self._check_number(len(characters) + len(merges))
        grown = grow(base, [chr(code) for code in characters], merges)
        return describe_states(
            base, grown, base_rows=base_rows, kinds={}, extender=self.description()
        )

    def _characters(
        self, layout: BpeLayout, counts: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Code points that become tokens, the most frequent first."""
        codes = np.flatnonzero(counts)
        if self.scripts:
            codes = codes[script_table(self.scripts)[codes] == WANTED]
        codes = codes[np.argsort(-counts[codes], kind="stable")]
        before = np.cumsum(counts[codes]) - counts[codes]
        is_needed = before < self.character_coverage * counts[codes].sum()
        chosen = codes[is_needed & (counts[codes] >= self.min_frequency)]
        allowed = [code for code in chosen if layout.is_allowed(chr(code))]
        return np.array(allowed[: self.num_new_tokens], np.int64)

    def _merges(
        self,
        layout: BpeLayout,
        segmenter: Segmenter,
        spool: Spool,
        characters: npt.NDArray[np.int64],
    ) -> list[Merge]:
        num_ids = len(layout.tokens)
        if num_ids + len(characters) > MAX_UNITS:
            raise ValueError(
                f"Continued training handles up to {MAX_UNITS} tokens and characters, the base has "
                f"{num_ids} and the text {len(characters)} characters more."
            )
        training = MergeTraining(
            layout,
            spelling=[*layout.tokens, *map(chr, characters)],
            alphabet=[
                *np.flatnonzero(segmenter.used).tolist(),
                *range(num_ids, num_ids + len(characters)),
            ],
            min_frequency=self.min_frequency,
            max_token_length=self.max_token_length,
        )
        return training.train(
            lambda: spool.strings(num_ids, characters), self.num_new_tokens - len(characters)
        )

    def _check_number(self, possible: int) -> None:
        if possible < self.num_new_tokens:
            scripts = f"scripts={list(self.scripts)}, " if self.scripts else ""
            raise ValueError(
                f"Only {possible} new tokens are possible, {self.num_new_tokens} were asked for. "
                f"They are limited by the text and by min_frequency={self.min_frequency}, "
                f"max_token_length={self.max_token_length}, {scripts}and, where the base has byte "
                f"fallback, character_coverage={self.character_coverage}: lower num_new_tokens or "
                "min_frequency, raise max_token_length or character_coverage, "
                f"{'name more scripts, ' if scripts else ''}or give more text."
            )
