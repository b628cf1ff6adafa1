"""New merges from words of units, by the Rust trainer, in the spelling of the base vocabulary."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from lightning_vocab.vocabulary.bpe.layout import BpeLayout
from lightning_vocab.vocabulary.bpe.token_choice import TokenChoice
from lightning_vocab.vocabulary.bpe.units import FIRST_PRIVATE, SEPARATOR
from lightning_vocab.vocabulary.collector import collector_paused

Merge = tuple[str, str]


@dataclass(frozen=True)
class Learned:
    """What training found.

    Args:
        merges: The merges to append, by rank.
        refused: Merges of a rank among these that the choice of tokens was against. Those that
            would have been built on them are not listed.
    """

    merges: list[Merge]
    refused: list[Merge]


@dataclass(frozen=True)
class MergeTraining:
    """Trains merges that continue those of the base.

    Base merges rank before new ones, so they run to completion first and leave the pieces that the
    trainer is given; every new token has a string that the base lacks, so no base merge can take
    part afterwards. What the trainer learns on units is therefore what the grown tokenizer does.

    A token that may not exist (its string is taken, it is too long, the choice of tokens is against
    it) is left out together with all merges that build on it. The other tokens never used it, so
    they stay reachable.

    Args:
        layout: The base.
        spelling: Token of each unit: the base tokens, then the new characters.
        alphabet: Units that occur, ascending.
        min_frequency: Smallest count of a pair that becomes a merge.
        max_token_length: Longest new token in characters.
        choice: Which of the tokens that may exist are wanted.
    """

    layout: BpeLayout
    spelling: Sequence[str]
    alphabet: Sequence[int]
    min_frequency: int
    max_token_length: int
    choice: TokenChoice

    def train(self, strings: Callable[[], Iterator[str]], num_merges: int) -> Learned:
        """The first ``num_merges`` merges that are wanted, fewer only if there are no more.

        Args:
            strings: Gives the corpus: one private code point a unit, words apart; read again when
                too many of the trained merges had to be left out.
            num_merges: Number of merges wanted.
        """
        size = num_merges + num_merges // 100
        while True:
            trained = self._trained(strings(), size)
            allowed, refused = self._allowed(trained)
            taken = self.choice.taken(allowed, num_merges)
            missing = num_merges - len(taken)
            if not missing or len(trained) < size:
                before = allowed.index(taken[-1]) if taken and not missing else len(allowed)
                return Learned(taken, [merge for at, merge in refused if at <= before])
            size += max(2 * missing, size // 4)

    def _trained(self, strings: Iterator[str], size: int) -> list[Merge]:
        """Up to ``size`` merges of unit strings, in order of rank."""
        if size == 0 or not self.alphabet:
            return []
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(SEPARATOR)
        trainer = trainers.BpeTrainer(
            vocab_size=len(self.alphabet) + size,
            min_frequency=self.min_frequency,
            initial_alphabet=[chr(FIRST_PRIVATE + unit) for unit in self.alphabet],
            # Counts units, so it stops long tokens early but not exactly: `_may_exist` does.
            max_token_length=self.max_token_length * self.layout.units_per_character,
            show_progress=False,
        )
        tokenizer.train_from_iterator(strings, trainer)
        with collector_paused():
            merges = json.loads(tokenizer.to_str())["model"]["merges"]
        return [(left, right) for left, right in merges]

    def _allowed(self, trained: Sequence[Merge]) -> tuple[list[Merge], list[tuple[int, Merge]]]:
        """Merges in the base's spelling, without those that may not be and all built on them.

        Then the merges that the choice of tokens is against, each with the number of those before.
        """
        spelled: dict[str, str] = {
            chr(FIRST_PRIVATE + unit): self.spelling[unit] for unit in self.alphabet
        }
        new: set[str] = set()
        allowed: list[Merge] = []
        refused: list[tuple[int, Merge]] = []
        for left, right in trained:
            if left not in spelled or right not in spelled:
                continue
            merge = spelled[left], spelled[right]
            token = merge[0] + merge[1]
            if token in new or not self._may_exist(token):
                continue
            if self.choice.refusal(*merge):
                refused.append((len(allowed), merge))
                continue
            spelled[left + right] = token
            new.add(token)
            allowed.append(merge)
        return allowed, refused

    def _may_exist(self, token: str) -> bool:
        return (
            self.layout.is_allowed(token)
            and self.layout.num_characters(token) <= self.max_token_length
        )
