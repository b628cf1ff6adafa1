"""Continued BPE: new merges behind those of the base, learned from text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase
from typing_extensions import override

from lightning_vocab.vocabulary.backend_state import BackendState, read_state
from lightning_vocab.vocabulary.bpe.layout import BpeLayout, read_layout
from lightning_vocab.vocabulary.bpe.merge_training import Learned, MergeTraining
from lightning_vocab.vocabulary.bpe.protected import ProtectedUnits, check_unchanged
from lightning_vocab.vocabulary.bpe.protected_text import ProtectedReading, check_protected
from lightning_vocab.vocabulary.bpe.segmentation import Segmenter
from lightning_vocab.vocabulary.bpe.spool import Spool
from lightning_vocab.vocabulary.bpe.token_choice import TokenChoice, check_patterns
from lightning_vocab.vocabulary.bpe.units import MAX_UNITS
from lightning_vocab.vocabulary.characters import WANTED, check_scripts, script_table
from lightning_vocab.vocabulary.corpus import batches
from lightning_vocab.vocabulary.describe import describe_states, rows_of_base
from lightning_vocab.vocabulary.expansion import ExpandedTokenizer, TokenKind
from lightning_vocab.vocabulary.extender import Extender
from lightning_vocab.vocabulary.fingerprint import backend, without_limits
from lightning_vocab.vocabulary.limits import check_learning, check_possible, check_switches
from lightning_vocab.vocabulary.progress import Progress, check_progress
from lightning_vocab.vocabulary.slots.slots import Slot
from lightning_vocab.vocabulary.slots.text import SlotChoice, former_tokens, grow_into


class ContinuedBPE(Extender):
    r"""Continues the merges of a BPE tokenizer on new text; nothing old changes.

    Works on byte-level BPE (GPT-2, Qwen, Llama 3) and on SentencePiece-type BPE with byte fallback
    (Llama 2, Phi-3). Merges are only appended, so no text ever gets more tokens than before, and
    every new token can be produced. Where the base writes characters in byte tokens, the frequent
    ones of the text become tokens first and count as new tokens too.

    The text is encoded once and kept in a temporary file; memory holds counts of words, and grows
    with the longest document, which is never divided.

    Args:
        num_new_tokens: Number of tokens to add; exactly as many are added, or an error names the
            number that is possible.
        min_frequency: Smallest number of times that a pair must stand in the text to be merged.
        max_token_length: Longest new token, in characters.
        scripts: Unicode scripts, such as Thai, whose words are learned from: words with a character
            of these scripts and no letter of another. All words if not given.
        character_coverage: Share of the characters missing from the base, by occurrence, that
            become tokens where the base has byte fallback. Rarer ones stay in byte tokens.
        whole_characters_only: Whether tokens that begin or end inside a character are left out
            where the base spells text in bytes, but for those that a token of whole characters is
            built from: these count as new tokens, and the manifest's ``extender`` field lists them
            under ``report``.
        exclude: Regular expressions (of the `regex` library) for what no new token may hold, such
            as ``\d`` for digits; they are searched for in the text of a token, its leading blank
            included, in which U+FFFD stands for a part of a character. Tokens that would be built
            from such a token are not made either.
        protected: Texts that must be cut into the same tokens as before. What would join two pieces
            that stand side by side in them is not made, nor what would be built from it, so leave
            out text of the kind that is to be learned. The manifest's ``report`` lists the tokens
            that were left out.
        protected_files: Text files in UTF-8, such as samples of code or of a language, that are
            protected in the same way. The manifest holds a checksum of what is protected. A file is
            one text, but one of more than 250,000 characters is cut behind line ends into pieces
            of that size, so that memory stays small: a join over such a cut is not seen.
        into_slots: Whether the new tokens take slots of the base, so that no matrix grows: padded
            rows, then reserved tokens, which lose their spelling (see `find_slots`).
        slot_patterns: Which slots they take, in this order: spellings of reserved tokens in which
            ``*`` stands for a number, or ``padded``. All kinds that are known if not given.
        progress: Whether a progress bar is shown; if not given, where stderr is a terminal.

    Raises:
        TypeError: If a setting is of another type.
        ValueError: If a number is out of range, a script is unknown, a pattern is no regular
            expression, or an item of a list is empty or no text.

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
        whole_characters_only: bool = False,
        exclude: Sequence[str] | None = None,
        protected: Sequence[str] | None = None,
        protected_files: Sequence[str] | None = None,
        into_slots: bool = False,
        slot_patterns: Sequence[str] | None = None,
        progress: bool | None = None,
    ) -> None:
        check_learning(num_new_tokens, min_frequency, max_token_length, character_coverage)
        check_switches(whole_characters_only=whole_characters_only)
        self.num_new_tokens = num_new_tokens
        self.min_frequency = min_frequency
        self.max_token_length = max_token_length
        self.scripts = check_scripts(scripts)
        self.character_coverage = character_coverage
        self.whole_characters_only = whole_characters_only
        self.exclude = check_patterns(exclude)
        self.protected = check_protected(protected, protected_files)
        self.slots = SlotChoice(into_slots, slot_patterns)
        self.progress = check_progress(progress)

    @override
    def arguments(self) -> dict[str, Any]:
        return {
            "num_new_tokens": self.num_new_tokens,
            "min_frequency": self.min_frequency,
            "max_token_length": self.max_token_length,
            "scripts": list(self.scripts) or None,
            "character_coverage": self.character_coverage,
            "whole_characters_only": self.whole_characters_only,
            "exclude": list(self.exclude) or None,
            "protected": self.protected.identity(),
            **self.slots.arguments(),
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
                there is no text, fewer tokens than wanted are possible or have a slot, or protected
                text holds the spelling of a slot that is taken or changes meanwhile.
            FileNotFoundError: If a file with protected text does not exist.
        """
        base = read_state(tokenizer)
        rows_of_base(base, base_rows)
        layout = read_layout(base)
        slots = self.slots.take(base, base_rows, self.num_new_tokens)
        extender = self.description()
        # What the manifest names is what is read here: a file may be another one later.
        choice, extender["args"]["protected"] = self._choice(layout, slots)
        with Progress(self.progress) as progress, Spool() as spool:
            segmenter = Segmenter(layout, self.scripts)
            with without_limits(backend(tokenizer)):
                for batch in batches(texts):
                    spool.write(segmenter.words(batch))
                    progress.advance(len(batch))
            progress.phase("learning merges")
            characters, refused = self._characters(choice, segmenter.character_counts)
            learned = self._learned(choice, segmenter, spool, characters)
        check_possible(len(characters) + len(learned.merges), extender["args"])
        grown = grow_into(slots, base, [chr(code) for code in characters], learned.merges)
        if self.protected:
            self._check_unchanged(base, grown, extender["args"]["protected"])
        if report := {
            **choice.report(learned.merges, [*refused, *learned.refused]),
            **former_tokens(slots),
        }:
            extender["report"] = report
        kinds: dict[int, TokenKind] = {slot.id: "slot" for slot in slots}
        return describe_states(base, grown, base_rows=base_rows, kinds=kinds, extender=extender)

    def _choice(
        self, layout: BpeLayout, slots: Sequence[Slot]
    ) -> tuple[TokenChoice, dict[str, Any] | None]:
        """What may become a token, and the identity of the protected text that was read."""
        units = identity = None
        if self.protected:
            reading = ProtectedReading(self.protected)
            taken = {slot.id: slot.token for slot in slots if slot.token is not None}
            units = ProtectedUnits.of(layout, reading.pieces(), taken)
            identity = reading.identity()
        return TokenChoice(layout, self.exclude, units, self.whole_characters_only), identity

    def _check_unchanged(
        self, base: BackendState, grown: BackendState, identity: dict[str, Any]
    ) -> None:
        reading = ProtectedReading(self.protected)
        check_unchanged(base, grown, reading.pieces())
        if reading.identity() != identity:
            raise ValueError(
                "A protected file changed while merges were learned, so what it holds now may be "
                "cut otherwise: extend again when nothing writes it."
            )

    def _characters(
        self, choice: TokenChoice, counts: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], list[tuple[str]]]:
        """Code points that become tokens, the most frequent first; and the ones refused."""
        codes = np.flatnonzero(counts)
        if self.scripts:
            codes = codes[script_table(self.scripts)[codes] == WANTED]
        codes = codes[np.argsort(-counts[codes], kind="stable")]
        before = np.cumsum(counts[codes]) - counts[codes]
        is_needed = before < self.character_coverage * counts[codes].sum()
        chosen = codes[is_needed & (counts[codes] >= self.min_frequency)]
        able = [code for code in chosen if choice.layout.is_allowed(chr(code))]
        refused = {code for code in able if choice.refusal(chr(code))}
        allowed = [code for code in able if code not in refused]
        taken = np.array(allowed[: self.num_new_tokens], np.int64)
        return taken, [(chr(code),) for code in able if code in refused]

    def _learned(
        self,
        choice: TokenChoice,
        segmenter: Segmenter,
        spool: Spool,
        characters: npt.NDArray[np.int64],
    ) -> Learned:
        layout = choice.layout
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
            choice=choice,
        )
        return training.train(
            lambda: spool.strings(num_ids, characters), self.num_new_tokens - len(characters)
        )
