"""Models whose slots get tokens: no row more, and the rows of the slots start anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from lightning_vocab.functional.slot_rows import look_untrained, row_figures
from lightning_vocab.initializers import SubwordMean
from lightning_vocab.initializers.stored_rows import read_rows
from lightning_vocab.rows import expand_model, export_model
from lightning_vocab.vocabulary import ContinuedBPE, ExpandedTokenizer, load_tokenizer
from lightning_vocab.vocabulary.slots.reuse_slots import ReuseSlots
from tests.conftest import NEW_TEXTS, make_model, make_tokenizer
from tests.expanded import with_slots


def protocol() -> ExpandedTokenizer:
    """Two padded rows (304, 305) and one reserved token (300) of 306 rows."""
    tokens = ["<|a|>", "<|b|>", "<|c|>"]
    return ReuseSlots(tokens).extend(with_slots(make_tokenizer(), 3), base_rows=306)


def text() -> ExpandedTokenizer:
    base = with_slots(make_tokenizer(), 3)
    return ContinuedBPE(3, into_slots=True).extend(base, NEW_TEXTS * 3, base_rows=306)


def matrices(model: Any) -> tuple[Tensor, Tensor]:
    return model.model.embed_tokens.weight, model.lm_head.weight


@pytest.mark.parametrize("make", [protocol, text])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("trained", [True, False], ids=["trained rows", "zero rows"])
def test_exactly_the_rows_of_the_slots_are_made_anew(
    make: Callable[[], ExpandedTokenizer], tied: bool, trained: bool, tmp_path: Path
) -> None:
    expanded = make()
    new = list(expanded.expansion.new_ids)
    assert new == [300, 304, 305]
    model = make_model(306, tied=tied)
    if not trained:
        with torch.no_grad():
            for matrix in matrices(model):
                matrix[new] = 0
    before = [matrix.detach().clone() for matrix in matrices(model)]
    expand_model(model, expanded, SubwordMean())
    loaded = AutoModelForCausalLM.from_pretrained(
        export_model(model, expanded, tmp_path / "model"), dtype=torch.float32
    )
    for old, matrix in zip(before, matrices(loaded), strict=True):
        assert matrix.shape == old.shape
        is_changed = (matrix != old).any(dim=1)
        assert is_changed.nonzero().flatten().tolist() == new
        assert matrix[new].norm(dim=1).min() > 0.01
    assert len(AutoTokenizer.from_pretrained(tmp_path / "model")) == len(expanded.tokenizer)
    assert loaded.config.vocab_size == 306


@pytest.mark.slow
@pytest.mark.assets
def test_padded_rows_of_a_real_model_look_untrained_and_are_filled(
    assets: Path, tmp_path: Path
) -> None:
    folder = str(assets / "lm/english-4M")
    stored = read_rows(folder)
    assert stored.head is not None
    slots, used = torch.arange(4096, 4224), torch.arange(4096)
    for rows in (stored.embedding, stored.head):
        assert look_untrained(row_figures(rows, slots), slots, used).all()
    tokens = [f"<|tool_{k}|>" for k in range(128)]
    expanded = ReuseSlots(tokens).extend(load_tokenizer(folder), base_rows=4224)
    model = AutoModelForCausalLM.from_pretrained(folder)
    expand_model(model, expanded, SubwordMean())
    filled = read_rows(str(export_model(model, expanded, tmp_path / "model")))
    assert filled.head is not None
    for old, rows in ((stored.embedding, filled.embedding), (stored.head, filled.head)):
        assert torch.equal(rows[:4096], old[:4096])
        assert (rows[4096:] != old[4096:]).any(dim=1).all()


def test_a_padded_row_that_gets_a_token_may_be_written_again(tmp_path: Path) -> None:
    # An export forbids rows without a token; expanding it once more gives one of them a token.
    tokenizer, base = make_tokenizer(), make_model(304)
    first = ReuseSlots(["<|one|>"]).extend(tokenizer, base_rows=304)
    expand_model(base, first, SubwordMean())
    folder = export_model(base, first, tmp_path / "first")
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.generation_config.suppress_tokens == [301, 302, 303]
    second = ReuseSlots(["<|two|>"]).extend(load_tokenizer(folder), base_rows=304)
    expand_model(model, second, SubwordMean())
    assert model.generation_config.suppress_tokens == [302, 303]
    exported = export_model(model, second, tmp_path / "second")
    config = GenerationConfig.from_pretrained(exported)
    assert config.suppress_tokens == [302, 303]
