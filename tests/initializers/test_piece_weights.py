from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch
from transformers import AutoTokenizer

from lightning_vocab.initializers import RowContext
from lightning_vocab.initializers.piece_weights import End, PieceWeights, piece_weights
from tests.conftest import case
from tests.expanded import make_expanded
from tests.initializers.contexts import make_context

ROWS = torch.ones(300, 2)


@pytest.mark.parametrize(
    ("weights", "end", "expected"),
    [
        ("uniform", "input", [1, 1, 1, 1, 1]),
        ("characters", "input", [3, 3, 3, 3, 1]),  # cat dog cat cat s
        ("bytes", "output", [3, 3, 3, 3, 1]),
        ("position", "input", [0.5, 1, 0.25, 0.5, 1]),
        ("position", "output", [1, 0.5, 1, 0.5, 0.25]),
        ("first", "output", [1, 0, 1, 0, 0]),
        ("last", "input", [0, 1, 0, 0, 1]),
    ],
)
def test_weights_by_hand(weights: PieceWeights, end: End, expected: list[float]) -> None:
    context = make_context(ROWS, words=["catdog", "catcats"])
    assert piece_weights(context, weights, end).tolist() == expected


@pytest.mark.parametrize("weights", get_args(PieceWeights))
def test_every_token_has_a_piece_that_counts(weights: PieceWeights) -> None:
    context = make_context(ROWS, words=["catdog", "д", "x" * 400, "<|tool|>", "日本語"])
    found = piece_weights(context, weights, "input")
    sums = torch.zeros(5).index_add(0, context.pieces.bag, found.float())
    assert (found >= 0).all()
    assert (sums >= 1).all()


@pytest.mark.parametrize("words", [["д", "日本語"], ["\ufffd"], ["é!"], ["catdog", " "]])
def test_bytes_of_pieces_add_up_to_those_of_the_token(words: list[str]) -> None:
    words = [word + word for word in words]  # a single character may be a token of the base
    context = make_context(ROWS, words=words)
    found = piece_weights(context, "bytes", "input")
    sums = torch.zeros(len(words), dtype=torch.long).index_add(0, context.pieces.bag, found)
    assert sums.tolist() == [len(word.encode()) for word in words]


@pytest.mark.assets
@pytest.mark.parametrize("folder", ["storyllamas-4096", case("qwen2.5", quick=False)])
def test_bytes_of_real_pieces_add_up(assets: Path, folder: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(assets / "tokenizers" / folder)
    words = ["ภาษาไทย", "naïvetés", "🙂🙃", "日本語の"]
    expanded = make_expanded(tokenizer, words)
    rows = torch.ones(len(tokenizer), 1)
    context = RowContext(
        expanded.expansion, expanded.tokenizer, rows, None, None, torch.Generator()
    )
    found = piece_weights(context, "bytes", "input")
    sums = torch.zeros(len(words), dtype=torch.long).index_add(0, context.pieces.bag, found)
    blank = int(folder != "qwen2.5")  # SentencePiece sets one in front of a text
    assert sums.tolist() == [len(word.encode()) + blank for word in words]
