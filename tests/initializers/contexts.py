"""Row contexts of a pico vocabulary with matrices of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from lightning_vocab.initializers import RowContext
from tests.conftest import make_tokenizer
from tests.expanded import make_expanded, with_slots

WORDS = ("catdog", "cats", "<|tool|>")


@cache
def pico_tokenizer() -> PreTrainedTokenizerFast:
    """Trained once; nobody changes it, `make_expanded` grows a copy."""
    return make_tokenizer()


def make_context(
    input_rows: Tensor,
    output_rows: Tensor | None = None,
    *,
    words: Sequence[str] = WORDS,
    output_bias: Tensor | None = None,
    slots: Mapping[int, str] | None = None,
    seed: int = 0,
) -> RowContext:
    """Base of 300 tokens (303 with slots 300 and 301); more rows than that are padded rows."""
    tokenizer = pico_tokenizer() if slots is None else with_slots(pico_tokenizer())
    expanded = make_expanded(tokenizer, words, base_rows=len(input_rows), slots=slots)
    return RowContext(
        expansion=expanded.expansion,
        tokenizer=expanded.tokenizer,
        input_rows=input_rows,
        output_rows=output_rows,
        output_bias=output_bias,
        generator=torch.Generator().manual_seed(seed),
    )


def id_of(text: str) -> int:
    """Id of a text that is one token of the pico vocabulary."""
    (id,) = pico_tokenizer().encode(text)
    return int(id)
