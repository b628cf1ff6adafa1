"""The trained bases: one tied without padded rows, one untied with 128 of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_vocab.initializers import Mean, SubwordMean
from lightning_vocab.rows.expand import expand_model
from lightning_vocab.rows.export import export_model
from lightning_vocab.rows.ties import is_tied
from tests.expanded import make_expanded

pytestmark = pytest.mark.assets

TEXT = "Once upon a time there was a little cat. She sat on the mat and said"
WORDS = [f"zq{place}xv" for place in range(200)]  # 128 of them fill the padded rows of english-4M
BASES = [("stories260K", 712), ("english-4M", 4296)]


@torch.no_grad()
def logits_of(model: Any, ids: Tensor) -> Tensor:
    logits: Tensor = model(ids).logits
    return logits


@pytest.mark.slow
@pytest.mark.parametrize(("name", "num_rows"), BASES)
def test_a_trained_base_keeps_its_logits_and_its_export_agrees(
    name: str, num_rows: int, assets: Path, tmp_path: Path
) -> None:
    folder = assets / "lm" / name
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    base_rows, tied = model.config.vocab_size, is_tied(model)
    expanded = make_expanded(tokenizer, WORDS, base_rows=base_rows)
    ids = torch.tensor([tokenizer.encode(TEXT)])
    before = logits_of(model, ids)
    expand_model(model, expanded, SubwordMean())
    after = logits_of(model, ids)
    assert after.shape[-1] == num_rows
    assert torch.equal(after[..., : len(tokenizer)], before[..., : len(tokenizer)])
    plain = AutoModelForCausalLM.from_pretrained(export_model(model, expanded, tmp_path / "plain"))
    mixed = torch.tensor([expanded.tokenizer.encode(f"{TEXT}zq7xv and zq150xv")])
    assert set(mixed[0].tolist()) & set(expanded.expansion.new_ids)
    assert torch.allclose(logits_of(plain, mixed), logits_of(model, mixed), atol=1e-4)
    assert is_tied(plain) is tied


@pytest.mark.parametrize(("name", "num_rows"), BASES)
def test_new_tokens_take_little_probability_from_a_trained_base(
    name: str, num_rows: int, assets: Path
) -> None:
    folder = assets / "lm" / name
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    expanded = make_expanded(tokenizer, WORDS, base_rows=model.config.vocab_size)
    expand_model(model, expanded, Mean())
    scores = logits_of(model, torch.tensor([tokenizer.encode(TEXT)])).softmax(-1)
    assert scores.shape[-1] == num_rows
    assert scores[..., list(expanded.expansion.new_ids)].sum(-1).mean() < 0.01
