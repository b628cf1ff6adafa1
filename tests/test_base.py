from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
)

from lightning_vocab.base import load_base_model
from tests.conftest import make_tokenizer
from tests.rows.bases import KINDS, make_base

SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def folder_of(model: PreTrainedModel, folder: Path) -> str:
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_encoder_is_refused(dtype: str, tmp_path: Path) -> None:
    # Weights as wide as a trained model's: what a token sees of the others is no rounding error.
    config = RobertaConfig(**SHAPE, max_position_embeddings=40, initializer_range=0.5)
    encoder = RobertaForMaskedLM(config)
    with pytest.raises(ValueError, match="got an encoder"):
        load_base_model(folder_of(encoder, tmp_path), dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", [*KINDS, "gemma2"])
def test_a_decoder_is_loaded(kind: Any, dtype: str, tmp_path: Path) -> None:
    if kind == "gemma2":
        shape: dict[str, Any] = {**SHAPE, "num_key_value_heads": 1, "head_dim": 8}
        decoder: PreTrainedModel = Gemma2ForCausalLM(Gemma2Config(**shape))
    else:
        decoder = make_base(kind)
    loaded = load_base_model(folder_of(decoder, tmp_path), dtype)
    assert type(loaded) is type(decoder)
    assert loaded.dtype == getattr(torch, dtype)
    assert not loaded.training
