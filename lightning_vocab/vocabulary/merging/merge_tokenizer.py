"""The tokens of a second tokenizer, made reachable behind the merges of a base."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase
from typing_extensions import override

from lightning_vocab.vocabulary.backend_state import read_state
from lightning_vocab.vocabulary.bpe.growth import grow
from lightning_vocab.vocabulary.bpe.layout import read_layout
from lightning_vocab.vocabulary.characters import check_scripts
from lightning_vocab.vocabulary.describe import describe_states, rows_of_base
from lightning_vocab.vocabulary.expansion import ExpandedTokenizer, VocabularyExpansion
from lightning_vocab.vocabulary.extender import Extender
from lightning_vocab.vocabulary.limits import check_whole_numbers
from lightning_vocab.vocabulary.merging.candidates import (
    IN_BASE,
    OTHER_SCRIPT,
    Candidates,
    find_candidates,
)
from lightning_vocab.vocabulary.merging.missing_merges import Reached, missing_merges
from lightning_vocab.vocabulary.merging.other_vocabulary import OtherVocabulary, read_other

UNREACHABLE = "unreachable without a token in between"
BEYOND = "beyond max_tokens"

_COUNTED = (IN_BASE, OTHER_SCRIPT, BEYOND)
"""Reasons of which the report gives the number alone: they were asked for, or nothing is lost."""


class MergeTokenizer(Extender):
    """Takes the tokens of a second tokenizer that the base lacks, by merges of two pieces each.

    The base is a byte-level BPE or a SentencePiece-type BPE with byte fallback, the other tokenizer
    a SentencePiece file or a Hugging Face folder with a BPE or a Unigram model. Merges are only
    appended, so no text gets more tokens than before, and every new token can be produced. A token
    that the base, with the other new tokens, cuts into more than two pieces would need a token that
    neither vocabulary has: it is left out and named.

    Merges rank in the order of the other's (a Unigram model has scores instead: the likeliest token
    first), behind those that make their parts. Ids follow the base's: single characters first,
    then in order of rank. The manifest's ``extender`` field says under ``report`` what was taken,
    what existed, and what was left out and why.

    Args:
        other: A SentencePiece file (``.model``), or a Hugging Face folder or id.
        max_tokens: The most tokens to take: the first in the other's order, each with those that it
            is built from.
        scripts: Unicode scripts, such as Han, of which tokens are taken: those with a character of
            these scripts and no letter of another. All tokens if not given.

    Raises:
        TypeError: If a setting is of another type.
        ValueError: If a number is below 1, a script is unknown or the other has no name.

    Example:
        >>> import tempfile
        >>> from tests.conftest import make_tokenizer
        >>> base, texts = make_tokenizer(), ["two cats and two tomcats"] * 3
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     other = base.train_new_from_iterator(texts, 268, show_progress=False)
        ...     _ = other.save_pretrained(folder)
        ...     grown = MergeTokenizer(folder).extend(base)
        >>> [token.surface for token in grown.expansion.tokens]
        ['tw', 'cats', 'two', 'mcats', 'omcats', 'tomcats', ' cats']
        >>> grown.expansion.extender["report"]["left_out_tokens"]
        {'unreachable without a token in between': ['Ġtwo']}
    """

    def __init__(
        self, other: str, max_tokens: int | None = None, scripts: Sequence[str] | None = None
    ) -> None:
        if not isinstance(other, str):
            raise TypeError(f"other must be the path of a tokenizer, got {other!r}.")
        if not other:
            raise ValueError("other must be the path of a tokenizer, got an empty string.")
        if max_tokens is not None:
            check_whole_numbers(max_tokens=max_tokens)
        self.other = other
        self.max_tokens = max_tokens
        self.scripts = check_scripts(scripts)

    @cached_property
    def _vocabulary(self) -> OtherVocabulary:
        return read_other(self.other)

    @override
    def arguments(self) -> dict[str, Any]:
        return {
            "other": self.other,
            "other_fingerprint": self._vocabulary.fingerprint,
            "max_tokens": self.max_tokens,
            "scripts": list(self.scripts) or None,
        }

    @override
    def has_built(self, expansion: VocabularyExpansion) -> bool:
        """Whether an expansion was made with these settings; the other tokenizer may have moved."""
        found = dict(expansion.extender.get("args", {}))
        mine = self.description()
        is_alike = {**found, "other": self.other} == mine["args"]
        return bool(is_alike and expansion.extender.get("class") == mine["class"])

    @override
    def extend(
        self,
        tokenizer: PreTrainedTokenizerBase,
        texts: Iterable[str] = (),
        *,
        base_rows: int | None = None,
    ) -> ExpandedTokenizer:
        """The tokenizer with the other's tokens, and its manifest.

        Args:
            tokenizer: The base tokenizer.
            texts: Not read: the tokens are given.
            base_rows: Height of the base model's embedding matrix, ``len(tokenizer)`` if not given.

        Raises:
            FileNotFoundError: If there is no other tokenizer at its path.
            ValueError: If one of the tokenizers is of another kind, or the other has no token that
                the base lacks and can reach.
        """
        base = read_state(tokenizer)
        rows_of_base(base, base_rows)
        layout = read_layout(base)
        candidates = find_candidates(layout, self._vocabulary, self.scripts)
        reachable = missing_merges(layout, list(candidates.tokens))
        reached = reachable
        if self.max_tokens is not None:
            reached = reachable.first(self.max_tokens, list(candidates.tokens))
        report = self._report(candidates, reachable, reached)
        if not reached.tokens:
            raise ValueError(
                f"{self.other!r} has no token that the base lacks and can reach by one merge of "
                f"two pieces: {report['left_out']}. Choose another tokenizer or more scripts."
            )
        grown = grow(base, reached.characters, reached.merges)
        extender = {**self.description(), "report": report}
        return describe_states(base, grown, base_rows=base_rows, kinds={}, extender=extender)

    def _report(
        self, candidates: Candidates, reachable: Reached, reached: Reached
    ) -> dict[str, Any]:
        can, taken = set(reachable.tokens), set(reached.tokens)
        named = dict(candidates.left_out)
        named[UNREACHABLE] = tuple(
            token for own, token in candidates.tokens.items() if own not in can
        )
        counts = {**self._vocabulary.left_out, **{reason: len(n) for reason, n in named.items()}}
        counts[BEYOND] = len(can) - len(taken)
        in_base = counts.pop(IN_BASE, 0)
        return {
            "taken": len(taken),
            "in_base": in_base,
            "left_out": {reason: count for reason, count in counts.items() if count},
            "left_out_tokens": {
                reason: list(names)
                for reason, names in named.items()
                if names and reason not in _COUNTED
            },
        }
