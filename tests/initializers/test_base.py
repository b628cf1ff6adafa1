from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from lightning_vocab.initializers import Mean, Normal, RowContext
from tests.expanded import make_expanded
from tests.initializers.contexts import WORDS, id_of, make_context


def test_statistics_are_about_rows_with_a_token() -> None:
    # 303 tokens in 306 rows; slot 301 becomes a new token, three rows are padded.
    context = make_context(torch.ones(306, 2), words=["catdog"], slots={301: "textlog"})
    assert context.expansion.new_ids == (301, 303)
    assert context.base_ids.tolist() == [*range(301), 302]


@pytest.mark.parametrize("where", ["input", "output"])
def test_rows_of_zeros_were_never_trained(where: str) -> None:
    inputs, outputs = torch.ones(300, 2), torch.ones(300, 2)
    (inputs if where == "input" else outputs)[7] = 0
    assert make_context(inputs, outputs).base_ids.tolist() == [*range(7), *range(8, 300)]


def test_a_base_of_zeros_has_no_statistics() -> None:
    with pytest.raises(ValueError, match="found none among 300: are the weights"):
        _ = make_context(torch.zeros(300, 2)).base_ids


def test_pieces_are_flattened_token_after_token() -> None:
    context = make_context(torch.ones(300, 2), words=["catdog", "cats"])
    assert context.num_new == 2
    assert context.pieces.ids.tolist() == [id_of("cat"), id_of("dog"), id_of("cat"), id_of("s")]
    assert context.pieces.offsets.tolist() == [0, 2]
    assert context.pieces.counts.tolist() == [2, 2]
    assert context.pieces.bag.tolist() == [0, 0, 1, 1]


def test_texts_of_byte_level_tokens_keep_spaces_and_mark_part_characters() -> None:
    context = make_context(torch.ones(300, 2))
    vocab = context.tokenizer.get_vocab()
    ids = [vocab[name] for name in ("Ġ", "cat", "Ð", "<|end|>")]
    assert context.texts(ids) == [" ", "cat", "\ufffd", "<|end|>"]


@pytest.mark.assets
def test_texts_of_sentencepiece_tokens_keep_their_space(assets: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(assets / "tokenizers" / "storyllamas-4096")
    expanded = make_expanded(tokenizer, ["catdog"])
    rows = torch.ones(len(tokenizer), 2)
    generator = torch.Generator()
    context = RowContext(expanded.expansion, expanded.tokenizer, rows, None, None, generator)
    vocab = tokenizer.get_vocab()
    ids = [vocab[name] for name in ("▁the", "ing", "<0x0A>", "<0xE0>")]
    assert context.texts(ids) == [" the", "ing", "\n", "\ufffd"]


def test_the_bias_of_new_rows_is_the_mean_of_tokens() -> None:
    rows = torch.ones(302, 2)
    bias = torch.arange(302.0)
    bias[300:] = 1e6  # padded rows
    context = make_context(rows, rows, output_bias=bias)
    for initializer in (Mean(), Normal()):
        assert initializer.bias(context).tolist() == [149.5] * len(WORDS)


def test_a_head_without_bias_has_none_to_give() -> None:
    with pytest.raises(ValueError, match="Expected a head with a bias"):
        Mean().bias(make_context(torch.ones(300, 2)))
