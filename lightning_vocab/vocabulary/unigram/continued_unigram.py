"""Continued Unigram: new pieces with scores that are calibrated against the base."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt
import regex
from transformers import PreTrainedTokenizerBase
from typing_extensions import override

from lightning_vocab.vocabulary.backend_state import read_state
from lightning_vocab.vocabulary.characters import WANTED, check_scripts, script_table
from lightning_vocab.vocabulary.corpus import batches
from lightning_vocab.vocabulary.describe import describe_states, rows_of_base
from lightning_vocab.vocabulary.expansion import ExpandedTokenizer
from lightning_vocab.vocabulary.extender import Extender
from lightning_vocab.vocabulary.limits import TooFewTokensError, check_learning, check_switches
from lightning_vocab.vocabulary.progress import Progress, check_progress
from lightning_vocab.vocabulary.unigram.candidates import train_pieces
from lightning_vocab.vocabulary.unigram.choice import check_lengths, choose
from lightning_vocab.vocabulary.unigram.growth import grow_unigram
from lightning_vocab.vocabulary.unigram.layout import UnigramLayout, read_unigram
from lightning_vocab.vocabulary.unigram.scores import Scores, UnigramScores
from lightning_vocab.vocabulary.unigram.words import Fragments, WordCounter, Words

# SentencePiece keeps U+2585 for itself; blanks would let a token cross words.
_NO_PART_OF_A_TOKEN = regex.compile(r"[\s\p{Cc}\p{Cs}\u2585]")

_SPARE = 1000  # candidates more than wanted, at least


class ContinuedUnigram(Extender):
    """Adds pieces to a SentencePiece-type Unigram tokenizer (T5, XLM-R, ALBERT) from new text.

    A Unigram model is trained on the words of the text; its pieces are added with scores just below
    what the base's best cut of each piece scores, all old scores being lowered by the same 2**-29.
    Then no text that the base writes without an unknown character ever gets more tokens, it decodes
    as before, and every new token can be produced (`unigram_scores` has the proof). Old ids stay.

    Text with characters that the base does not know: with byte fallback the same holds. Without, a
    run of them is one ``<unk>`` and lost. The frequent ones become tokens first and count as new
    tokens too; such text is then given back, in at most one token for each of its characters, which
    can be more than the one ``<unk>``. With ``new_characters=False`` it stays lost, and no text at
    all gets more tokens. Apart from it are words with an unknown character in which normalization
    alone spells an added or a byte token. Text that spells a byte token (``<0xE0>``) is that byte
    to the base: characters beside it may be decoded otherwise.

    Where characters stand in longer tokens of the base and are no token themselves, which training
    with SentencePiece does not bring about, this holds with each unknown character counted as one
    token. It costs the new tokens that score less than the base's lowest one, which can be most of
    them, and those characters stay unknown.

    Added tokens come last. Those added before, behind the model's list, have to move into it to
    keep their ids, and that fails where they hold a character that the base does not know, such as
    the ``<`` of ``<|tool|>`` for T5: grow first, and run `AddTokens` on the grown tokenizer.

    A grown Unigram tokenizer is saved as ``tokenizer.json``. There is no ``tokenizer.model`` for
    it: that format stores scores in single precision, which drops the 2**-29.

    Memory holds one count for each distinct word, and what SentencePiece needs to learn from them.

    Args:
        num_new_tokens: Number of tokens to add; exactly as many are added, or an error names a
            number that is possible, which takes the time of one or more further runs to find.
        min_frequency: Smallest number of times that the grown tokenizer must use a new token of
            several characters in the text, and that a new character must occur.
        max_token_length: Longest new token, in characters.
        scripts: Unicode scripts, such as Thai, whose words are learned from: words with a character
            of these scripts and no letter of another. All words if not given.
        character_coverage: Share of the characters missing from the base, by occurrence, that
            become tokens. Rarer ones stay unknown.
        new_characters: Whether characters that the base does not know become tokens.
        progress: Whether a progress bar is shown; if not given, where stderr is a terminal.

    Raises:
        TypeError: If a setting is of another type.
        ValueError: If a number is out of range or a script is unknown.

    Example:
        >>> from tests.vocabulary.unigram.unigrams import make_unigram_tokenizer
        >>> extender = ContinuedUnigram(num_new_tokens=1)
        >>> grown = extender.extend(make_unigram_tokenizer(), ["zebra zebra and zebra"])
        >>> [token.surface for token in grown.expansion.tokens]
        [' zebra']
    """

    def __init__(
        self,
        num_new_tokens: int,
        min_frequency: int = 2,
        max_token_length: int = 32,
        scripts: Sequence[str] | None = None,
        character_coverage: float = 0.9995,
        new_characters: bool = True,
        progress: bool | None = None,
    ) -> None:
        check_learning(num_new_tokens, min_frequency, max_token_length, character_coverage)
        check_switches(new_characters=new_characters)
        self.num_new_tokens = num_new_tokens
        self.min_frequency = min_frequency
        self.max_token_length = max_token_length
        self.scripts = check_scripts(scripts)
        self.character_coverage = character_coverage
        self.new_characters = new_characters
        self.progress = check_progress(progress)

    @override
    def arguments(self) -> dict[str, Any]:
        return {
            "num_new_tokens": self.num_new_tokens,
            "min_frequency": self.min_frequency,
            "max_token_length": self.max_token_length,
            "scripts": list(self.scripts) or None,
            "character_coverage": self.character_coverage,
            "new_characters": self.new_characters,
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
            TooFewTokensError: If fewer tokens than wanted are possible; it names a number that is.
            ValueError: If the tokenizer is of another kind, an added token cannot keep its id, a
                document holds a lone surrogate, or there is no text.
        """
        base = read_state(tokenizer)
        rows_of_base(base, base_rows)
        layout = read_unigram(base)
        counter = WordCounter(base)
        with Progress(self.progress) as progress:
            for batch in batches(texts):
                counter.add(batch)
                progress.advance(len(batch))
            progress.phase("learning pieces")
            words = counter.words(self.scripts)
            characters = self._characters(layout, words)
            scores = UnigramScores(layout, characters)
            fragments = words.fragments(_writable(layout, characters))
            tokens, values = self._pieces(layout, scores, fragments)
            self._check_number(len(characters) + len(tokens), layout)
            nothing = np.zeros(0)
            check_lengths(
                scores.tokenizer([], nothing), scores.tokenizer(tokens, values), fragments
            )
        grown = grow_unigram(base, scores.vocabulary(tokens, values))
        return describe_states(
            base, grown, base_rows=base_rows, kinds={}, extender=self.description()
        )

    def _characters(self, layout: UnigramLayout, words: Words) -> list[str]:
        """Characters that become tokens, the most frequent first."""
        if not self.new_characters:
            return []
        counts = np.where(layout.is_spelled | layout.is_hidden, 0, words.characters())
        if self.scripts:
            counts[script_table(self.scripts) != WANTED] = 0
        codes = np.flatnonzero(counts)
        codes = codes[np.argsort(-counts[codes], kind="stable")]
        before = np.cumsum(counts[codes]) - counts[codes]
        is_needed = before < self.character_coverage * counts.sum()
        chosen = map(chr, codes[is_needed & (counts[codes] >= self.min_frequency)])
        allowed = [
            char
            for char in chosen
            if layout.is_allowed(char) and not _NO_PART_OF_A_TOKEN.match(char)
        ]
        return allowed[: self.num_new_tokens]

    def _pieces(
        self, layout: UnigramLayout, scores: UnigramScores, fragments: Fragments
    ) -> tuple[list[str], Scores]:
        """New tokens of several characters and their scores, the likeliest first.

        Where they are too few, as many as there are when just that number is asked for: candidates
        and rounds of choice depend on the number, so what is left of a larger one need not be.
        """
        wanted = self.num_new_tokens - (scores.num_known - len(layout.tokens))
        tokens, values = self._most_used(layout, scores, fragments, wanted)
        while len(tokens) < wanted:
            wanted = len(tokens)
            tokens, values = self._most_used(layout, scores, fragments, wanted)
        return tokens, values

    def _most_used(
        self, layout: UnigramLayout, scores: UnigramScores, fragments: Fragments, wanted: int
    ) -> tuple[list[str], Scores]:
        """The wanted number of pieces, or fewer where no more are used often enough."""
        if not wanted or self.max_token_length < 2:
            return [], np.zeros(0)
        size = max(2 * wanted, wanted + _SPARE)
        while True:
            tokens, values, is_all = self._candidates(layout, scores, fragments, size)
            kept = choose(
                scores,
                fragments,
                tokens,
                values,
                wanted=wanted,
                min_frequency=self.min_frequency,
            )
            if len(kept) >= wanted or is_all:
                return [tokens[i] for i in kept], values[kept]
            size *= 3

    def _candidates(
        self, layout: UnigramLayout, scores: UnigramScores, fragments: Fragments, size: int
    ) -> tuple[list[str], Scores, bool]:
        """Trained pieces that can be added, their scores, and whether there are no more."""
        pieces, likelihoods = train_pieces(fragments, size, self.max_token_length)
        is_new = [len(piece) > 1 and layout.is_allowed(piece) for piece in pieces]
        tokens = list(compress(pieces, is_new))
        is_all = sum(len(piece) > 1 for piece in pieces) < size
        values = scores.calibrated(tokens, likelihoods[is_new])
        is_kept = scores.is_high_enough(values)
        return list(compress(tokens, is_kept)), values[is_kept], is_all

    def _check_number(self, possible: int, layout: UnigramLayout) -> None:
        if possible >= self.num_new_tokens:
            return
        scripts = f"scripts={list(self.scripts)}, " if self.scripts else ""
        hidden = (
            "This base has characters inside longer tokens that are no token themselves, which "
            "rules out tokens that score less than its lowest one. "
        )
        raise TooFewTokensError(
            f"Only {possible} new tokens are possible, {self.num_new_tokens} were asked for. "
            f"{hidden if layout.hides_characters else ''}They "
            f"are limited by the text and by min_frequency={self.min_frequency}, "
            f"max_token_length={self.max_token_length}, {scripts}"
            f"character_coverage={self.character_coverage} and "
            f"new_characters={self.new_characters}: lower num_new_tokens or min_frequency, raise "
            f"max_token_length or character_coverage, {'name more scripts, ' if scripts else ''}"
            "or give more text.",
            possible,
        )


def _writable(layout: UnigramLayout, characters: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which code points can be part of a new token, ``(0x110000,)``."""
    table = layout.is_spelled.copy()
    table[list(map(ord, characters))] = True
    for code in np.flatnonzero(table):
        if _NO_PART_OF_A_TOKEN.match(chr(code)):
            table[code] = False
    return table
