from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from lightning_vocab.initializers.stored_rows import read_rows
from lightning_vocab.initializers.stored_tensors import name_in
from tests.conftest import make_model, make_tokenizer


def test_an_untied_model_gives_both_matrices(tmp_path: Path) -> None:
    model = make_model(tied=False, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path)
    stored = read_rows(str(tmp_path))
    assert torch.equal(stored.embedding, model.model.embed_tokens.weight)
    assert stored.head is not None
    assert torch.equal(stored.head, model.lm_head.weight)
    assert stored.embedding.dtype is torch.bfloat16


def test_a_tied_model_gives_one_matrix_even_if_two_are_stored(tmp_path: Path) -> None:
    model = make_model(tied=True)
    model.save_pretrained(tmp_path)
    assert read_rows(str(tmp_path)).head is None
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, tmp_path / "model.safetensors")
    assert read_rows(str(tmp_path)).head is None


def test_only_the_files_that_hold_the_matrices_are_opened(tmp_path: Path) -> None:
    model = make_model(tied=False)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    needed = {index["model.embed_tokens.weight"], index["lm_head.weight"]}
    others = set(index.values()) - needed
    assert others
    for name in others:
        (tmp_path / name).unlink()
    stored = read_rows(str(tmp_path))
    assert torch.equal(stored.embedding, model.model.embed_tokens.weight)
    (tmp_path / index["lm_head.weight"]).unlink()
    with pytest.raises(FileNotFoundError, match=r"its index says holds 'lm_head.weight'"):
        read_rows(str(tmp_path))


def test_a_prefix_that_the_file_leaves_out_is_no_obstacle(tmp_path: Path) -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=8, n_layer=1, n_head=2))
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    assert "wte.weight" in bare
    save_file(bare, tmp_path / "model.safetensors")
    assert torch.equal(read_rows(str(tmp_path)).embedding, model.transformer.wte.weight)


def test_a_tokenizer_alone_has_no_rows(tmp_path: Path) -> None:
    make_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="a tokenizer alone"):
        read_rows(str(tmp_path))


def test_what_is_no_whole_model_is_refused(tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({"model.norm.weight": tensors["model.norm.weight"]}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"holds no 'model.embed_tokens.weight'"):
        read_rows(str(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither model.safetensors nor"):
        read_rows(str(tmp_path))


def test_one_name_for_several_tensors_is_refused(tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    rows = tensors.pop("model.embed_tokens.weight")
    tensors |= {f"{part}.model.embed_tokens.weight": rows.clone() for part in ("ears", "eyes")}
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"Several tensors could be 'model.embed_tokens.weight'"):
        read_rows(str(tmp_path))


def test_a_part_of_another_model_has_no_name() -> None:
    with pytest.raises(ValueError, match="Expected a submodule of Linear, got Embedding"):
        name_in(nn.Linear(2, 2), nn.Embedding(2, 2), "weight")


@pytest.mark.parametrize("kept", [4, 1000, -10])
def test_a_file_that_is_cut_short_is_named(kept: int, tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"model.safetensors' is no whole safetensors file"):
        read_rows(str(tmp_path))


@pytest.mark.slow
@pytest.mark.assets
def test_an_encoder_decoder_is_refused_in_a_line(assets: Path, tmp_path: Path) -> None:
    shutil.copy(assets / "tokenizers/t5-small/config.json", tmp_path)
    with pytest.raises(ValueError, match="not a causal language model") as raised:
        read_rows(str(tmp_path))
    assert len(str(raised.value)) < 500
