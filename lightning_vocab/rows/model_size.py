"""How large a model is, told by its config alone: no weights are read and none are made."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils.hub import cached_file

from lightning_vocab.rows.locate import is_causal_lm
from lightning_vocab.rows.ties import is_tied, parameters_once


@dataclass(frozen=True)
class ModelSize:
    """What a config says of a model's size; None for what it does not say.

    Args:
        num_rows: Rows of the embedding matrix.
        hidden_size: Width of a row.
        is_tied: Whether the embedding is the head as well.
        has_head_bias: Whether the head has a bias.
        num_backbone_parameters: Parameters outside the two matrices that a token is multiplied
            with. Tables that are looked up, such as those of positions, do not count.
        context: The most tokens that a row of text may have.
        unknown_because: Why something is None; empty where nothing is.
    """

    num_rows: int | None = None
    hidden_size: int | None = None
    is_tied: bool | None = None
    has_head_bias: bool | None = None
    num_backbone_parameters: int | None = None
    context: int | None = None
    unknown_because: str = ""


def read_model_size(base: str) -> ModelSize:
    """The size of a model, from its ``config.json``.

    The model is built on torch's ``meta`` device, where parameters have shapes and no memory. A
    config that leaves its width or depth out (folders of a tokenizer alone often hold such a one)
    says nothing of them here: the defaults of its class would be those of another model.

    Args:
        base: A Hugging Face folder or a hub id.

    Raises:
        ValueError: If the config is of no causal language model.
    """
    folder = Path(base).expanduser()
    source = str(folder) if folder.is_dir() else base
    file = cached_file(source, "config.json", _raise_exceptions_for_missing_entries=False)
    if file is None:
        return ModelSize(unknown_because=f"{base!r} has no config.json")
    written = json.loads(Path(file).read_text(encoding="utf-8"))
    config = AutoConfig.from_pretrained(source)
    text_config = config.get_text_config()
    num_rows = int(text_config.vocab_size)
    needed = ("hidden_size", "num_hidden_layers")
    if missing := [name for name in needed if not _says(text_config, written, name)]:
        why = f"its config does not say {' and '.join(missing)}"
        return ModelSize(num_rows, unknown_because=why)
    size = _size(_built(base, config), getattr(text_config, "max_position_embeddings", None))
    if getattr(text_config, "num_experts_per_tok", None) is None:
        return size
    why = "it is a mixture of experts, of which a token meets only a part"
    return replace(size, num_backbone_parameters=None, unknown_because=why)


def _says(config: PreTrainedConfig, written: dict[str, Any], name: str) -> bool:
    """Whether a config file, or a part of it, holds a number that its class has a default for."""
    names = {name, config.attribute_map.get(name, name)}
    parts = [written, *(part for part in written.values() if isinstance(part, dict))]
    return any(not names.isdisjoint(part) for part in parts)


def _built(base: str, config: PreTrainedConfig) -> PreTrainedModel:
    expected = "expected the config of a causal language model with an embedding and a head"
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except ValueError as error:
        raise ValueError(
            f"{base!r} gives no model ({config.model_type}): {expected}. {error}"
        ) from error
    if not is_causal_lm(model):
        raise ValueError(f"{base!r} is a {type(model).__name__}: {expected}.")
    assert isinstance(model, PreTrainedModel)
    return model


def _size(model: PreTrainedModel, context: int | None) -> ModelSize:
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert isinstance(embedding, nn.Embedding)
    assert head is not None
    tables = [part for part in model.modules() if isinstance(part, nn.Embedding)]
    apart = {id(parameter) for parameter in parameters_once(*tables, head)}
    return ModelSize(
        num_rows=embedding.num_embeddings,
        hidden_size=embedding.embedding_dim,
        is_tied=is_tied(model),
        has_head_bias=getattr(head, "bias", None) is not None,
        num_backbone_parameters=sum(
            parameter.numel() for parameter in parameters_once(model) if id(parameter) not in apart
        ),
        context=context,
    )
