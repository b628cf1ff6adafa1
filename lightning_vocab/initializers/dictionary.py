"""Rows copied from the translations of a token."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import get_args

import torch
from torch import Tensor
from typing_extensions import override

from lightning_vocab.initializers.base import Initializer, RowContext, random_rows
from lightning_vocab.initializers.combined import CombinedRows, RowWeights
from lightning_vocab.initializers.word_pairs import Dictionary, Side, folded, read_dictionary


@dataclass(frozen=True)
class DictionaryUse:
    """What a dictionary had for the new tokens.

    Args:
        num_pairs: Pairs in the file.
        num_equal: Pairs with the same word on both sides, which say nothing and are left out.
        num_translations: Different translations of new tokens.
        num_unknown: Those that the base cannot write: a part is unknown to its tokenizer or has a
            row that was never trained. They are left out.
    """

    num_pairs: int
    num_equal: int
    num_translations: int
    num_unknown: int

    def __str__(self) -> str:
        return (
            f"{self.num_pairs} pairs ({self.num_equal} left out: the same word on both sides); "
            f"{self.num_translations} translations of new tokens ({self.num_unknown} left out: the "
            "base cannot write them)."
        )


class DictionaryAlignment(CombinedRows):
    """A token starts where its translation is: แอปเปิ้ล takes the row of apple.

    ``row = mean over translations of (mean of the rows of the translation's pieces) + noise``, the
    same at both ends. A translation that is one token of the base gives its row. Of the two forms
    ``" word"`` and ``"word"`` the one with fewer pieces is taken, the first one where they are
    equal: it is the form inside a text. New tokens are looked up by their surface without the
    blanks around it; those that are not in the dictionary go to the fallback, and `coverage` says
    which. Bilingual methods such as WECHSEL (Minixhofer et al., arXiv 2112.06598) go on from such
    pairs with auxiliary vectors; this is the pairs alone.

    Tokens with the same translations would have the same row and get the same gradients until
    their contexts differ; the noise keeps them apart. It is as long as ``noise`` times the row, in
    a random direction, drawn apart for the two ends: ``row += noise * |row| / sqrt(dim) * N(0,
    1)``. The fallback's rows and the bias (the mean of the translations' biases) get none.

    Cost: the dictionary is read once, and each different translation cut once; each piece reads one
    row. Memory: the rows of the different pieces in float32.

    Args:
        pairs: A ``.tsv`` file of two columns, or a ``.jsonl`` file of arrays of two words.
        noise: Length of the noise in lengths of the row; 0 for none.
        fallback: Makes the rows of tokens without a translation. None makes such a token an error.
        new_side: The column that holds the words of the new tokens.
        fold_case: Whether tokens and words match whatever their case.

    Raises:
        ValueError: If ``noise`` is negative or ``new_side`` is none of its choices.
    """

    def __init__(
        self,
        pairs: str | os.PathLike[str],
        noise: float = 0.1,
        fallback: Initializer | None = None,
        new_side: Side = "right",
        fold_case: bool = True,
    ) -> None:
        super().__init__(fallback)
        if not noise >= 0:
            raise ValueError(f"noise must be 0 or positive: got {noise}.")
        if new_side not in get_args(Side):
            raise ValueError(f"new_side must be right or left: got {new_side!r}.")
        self.pairs = str(pairs)
        self.noise = noise
        self.new_side = new_side
        self.fold_case = fold_case
        self.use: DictionaryUse | None = None
        """What the dictionary had, after a call of `rows`."""

    @override
    def rows(self, context: RowContext) -> tuple[Tensor, Tensor | None]:
        """Input rows and, if untied, output rows ``(num_new, dim)``.

        Raises:
            FileNotFoundError: If there is no such dictionary.
            ValueError: If a line of it is no pair, or a token has no translation and there is no
                fallback.
        """
        inputs, outputs = super().rows(context)
        if self.noise == 0 or self.coverage is None:
            return inputs, outputs
        missing = set(self.coverage.missing)
        aligned = torch.tensor([each.surface not in missing for each in context.expansion.tokens])
        inputs = self._jittered(context, inputs, aligned)
        return inputs, None if outputs is None else self._jittered(context, outputs, aligned)

    @override
    def weights(self, context: RowContext) -> RowWeights:
        """The base rows of each new row and their weights, which sum to 1."""
        words = read_dictionary(self.pairs, new_side=self.new_side, fold_case=self.fold_case)
        wanted = self._wanted(context, words)
        texts = list(dict.fromkeys(chain.from_iterable(wanted)))
        pieces = _pieces(context, texts)
        self.use = DictionaryUse(
            num_pairs=words.num_pairs,
            num_equal=words.num_equal,
            num_translations=len(texts),
            num_unknown=len(texts) - len(pieces),
        )
        bags = [[pieces[text] for text in each if text in pieces] for each in wanted]
        ids = [id for bag in bags for cut in bag for id in cut]
        weights = [1 / (len(bag) * len(cut)) for bag in bags for cut in bag for _ in cut]
        return RowWeights(
            is_covered=torch.tensor([bool(bag) for bag in bags]),
            ids=torch.tensor(ids, dtype=torch.long),
            weights=torch.tensor(weights, dtype=torch.float64),
            counts=torch.tensor([sum(map(len, bag)) for bag in bags if bag], dtype=torch.long),
        )

    def _wanted(self, context: RowContext, words: Dictionary) -> list[tuple[str, ...]]:
        """The translations of each new token."""
        surfaces = [token.surface for token in context.expansion.tokens]
        keys = [folded(surface, fold_case=self.fold_case) for surface in surfaces]
        return [words.translations.get(key, ()) for key in keys]

    def _jittered(self, context: RowContext, rows: Tensor, aligned: Tensor) -> Tensor:
        lengths = rows.norm(dim=1, keepdim=True) * (self.noise / rows.shape[1] ** 0.5)
        noise = lengths * random_rows(context).to(rows)
        jittered: Tensor = rows + noise * aligned.to(rows.device).unsqueeze(1)
        return jittered


def _pieces(context: RowContext, texts: Sequence[str]) -> dict[str, list[int]]:
    """The base rows of each text, of those texts whose every piece has one."""
    inside = _cut(context, [f" {text}" for text in texts])
    alone = _cut(context, texts)
    shortest = [
        first if len(first) <= len(second) else second
        for first, second in zip(inside, alone, strict=True)
    ]
    usable = set(context.base_ids.tolist()) - set(context.tokenizer.all_special_ids)
    return {
        text: cut
        for text, cut in zip(texts, shortest, strict=True)
        if cut and usable.issuperset(cut)
    }


def _cut(context: RowContext, texts: Sequence[str]) -> list[list[int]]:
    """Ids of the base: where the grown tokenizer finds a new token, its pieces."""
    if not texts:
        return []
    pieces = {token.id: token.pieces for token in context.expansion.tokens}
    encoded = context.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return [[id for each in ids for id in pieces.get(each, (each,))] for ids in encoded]
