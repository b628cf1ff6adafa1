"""Inputs on which the initializers are measured: random rows, tokens and vectors of a size."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, PreTrainedTokenizerFast
from typing_extensions import override

from lightning_vocab.initializers import RowContext
from lightning_vocab.initializers.spaces.base import AuxiliarySpace, TokenVectors
from lightning_vocab.vocabulary.expansion import NewToken, VocabularyExpansion


class Size(NamedTuple):
    """How large the matrices are, and how many of the old tokens the donor shares."""

    num_new: int
    num_old: int
    dim: int
    shared: int
    k: int


SIZES = {
    "quick": Size(500, 4_000, 128, 1_000, 16),
    "standard": Size(10_000, 32_000, 896, 15_000, 64),
    "wide": Size(10_000, 32_000, 4_096, 15_000, 64),
    "tall": Size(10_000, 151_936, 896, 15_000, 64),
    "large": Size(10_000, 151_936, 4_096, 15_000, 64),
}


class RandomSpace(AuxiliarySpace):
    """Random vectors of width 300 for all tokens: the cost of a space is not measured here."""

    @override
    def vectors(self, context: RowContext) -> TokenVectors:
        generator = torch.Generator().manual_seed(1)
        new = torch.randn(context.num_new, 300, generator=generator)
        old = torch.randn(len(context.base_ids), 300, generator=generator)
        knows = torch.ones(len(old), dtype=torch.bool)
        return TokenVectors(new, torch.ones(len(new), dtype=torch.bool), old, knows)


def names(size: Size, shared: int) -> list[str]:
    """The first shared old words and the new ones."""
    return [f"w{i}" for i in range(shared)] + [f"n{i}" for i in range(size.num_new)]


def make_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    vocab = {word: place for place, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=words[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def make_context(size: Size, *, tied: bool) -> RowContext:
    generator = torch.Generator().manual_seed(0)
    pieces = torch.randint(size.num_old, (size.num_new, 4), generator=generator).tolist()
    old, rows_after = size.num_old, size.num_old + size.num_new
    tokens = tuple(
        NewToken(old + i, f"n{i}", f"n{i}", "text", tuple(pieces[i])) for i in range(size.num_new)
    )
    expansion = VocabularyExpansion(old, old, rows_after, tokens, "", "", {}, {})
    inputs = torch.randn(size.num_old, size.dim, generator=generator)
    outputs = None if tied else torch.randn(size.num_old, size.dim, generator=generator)
    tokenizer = make_tokenizer(names(size, size.num_old))
    return RowContext(expansion, tokenizer, inputs, outputs, None, generator)


def write_files(folder: Path, size: Size, rows: Tensor) -> None:
    """A dictionary, and a donor whose rows of shared tokens are those of the base.

    So what matching pursuit makes is its reconstruction of the donor's row.
    """
    lines = [f"w{1 + i % (size.num_old - 1)}\tn{i}\n" for i in range(size.num_new)]
    (folder / "pairs.tsv").write_text("".join(lines))
    words = names(size, size.shared)
    make_tokenizer(words).save_pretrained(folder / "donor")
    config = LlamaConfig(vocab_size=len(words), hidden_size=size.dim, num_hidden_layers=1)
    config.update({"num_attention_heads": 1, "tie_word_embeddings": True})
    config.save_pretrained(folder / "donor")
    new = torch.randn(size.num_new, size.dim, generator=torch.Generator().manual_seed(2))
    stored = torch.cat([rows[: size.shared], new])
    save_file({"model.embed_tokens.weight": stored}, folder / "donor" / "model.safetensors")
