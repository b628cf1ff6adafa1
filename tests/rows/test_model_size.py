from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import (
    GPT2Config,
    MixtralConfig,
    PhiConfig,
    PreTrainedConfig,
    T5Config,
)

from lightning_vocab.demo import resolve_base
from lightning_vocab.rows.model_size import ModelSize, read_model_size
from lightning_vocab.rows.ties import parameters_once
from tests.conftest import make_model


def folder(config: PreTrainedConfig, path: Path) -> str:
    config.save_pretrained(path)
    return str(path)


@pytest.mark.parametrize("tied", [True, False])
def test_the_size_is_that_of_the_model_that_the_config_describes(
    tied: bool, tmp_path: Path
) -> None:
    model = make_model(320, tied=tied)
    size = read_model_size(folder(model.config, tmp_path))
    matrices = 320 * 32 * (1 if tied else 2)
    backbone = sum(parameter.numel() for parameter in parameters_once(model)) - matrices
    assert size == ModelSize(320, 32, tied, False, backbone, 128)


def test_position_tables_are_looked_up_and_do_not_count(tmp_path: Path) -> None:
    config = GPT2Config(
        vocab_size=50, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    # A block: attention 16*48+48 + 16*16+16, MLP 16*64+64 + 64*16+16, three norms of 2*16.
    expected = 816 + 272 + 1088 + 1040 + 3 * 32
    size = read_model_size(folder(config, tmp_path))
    assert (size.hidden_size, size.num_backbone_parameters) == (16, expected)


def test_a_head_bias_is_seen(tmp_path: Path) -> None:
    config = PhiConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    assert read_model_size(folder(config, tmp_path)).has_head_bias is True


def test_the_compute_of_a_mixture_of_experts_is_unknown(tmp_path: Path) -> None:
    config = MixtralConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    size = read_model_size(folder(config, tmp_path))
    assert (size.hidden_size, size.num_backbone_parameters) == (16, None)
    assert "mixture of experts" in size.unknown_because


def test_a_config_without_width_says_its_rows_and_nothing_else(tmp_path: Path) -> None:
    # As AutoConfig reads it, this Llama is 4,096 wide.
    config = {"model_type": "llama", "vocab_size": 321}
    (tmp_path / "config.json").write_text(json.dumps(config))
    size = read_model_size(str(tmp_path))
    why = "its config does not say hidden_size and num_hidden_layers"
    assert size == ModelSize(num_rows=321, unknown_because=why)


def test_a_folder_without_a_config_says_nothing(tmp_path: Path) -> None:
    size = read_model_size(str(tmp_path))
    assert size == ModelSize(unknown_because=f"{str(tmp_path)!r} has no config.json")


@pytest.mark.slow
def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    config = T5Config(vocab_size=50, d_model=16, num_layers=1, num_heads=2, d_kv=8, d_ff=16)
    path = folder(config, tmp_path)
    with pytest.raises(ValueError, match=r"\(t5\): expected the config of a causal language model"):
        read_model_size(path)


def test_no_weights_are_made() -> None:
    size = read_model_size(resolve_base("demo"))
    assert (size.num_rows, size.hidden_size, size.is_tied, size.context) == (2048, 128, True, 512)
