"""The embedding and the head of a stored model, read without loading the model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils.hub import cached_file

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, eq=False)
class StoredRows:
    """The matrices of a stored model.

    Args:
        embedding: Input rows, ``(num_rows, dim)``, in the type of the file.
        head: Output rows, ``(num_rows, dim)``, or None where the file holds one matrix for both.
    """

    embedding: Tensor
    head: Tensor | None


def read_rows(base: str) -> StoredRows:
    """The embedding of a model in safetensors files and, if it has its own, the head.

    Which tensors these are, the model's class says: it is built from the config without weights.
    Only these tensors are read; of a hub id, only the files that hold them are fetched.

    Args:
        base: A Hugging Face folder or a hub id.

    Raises:
        FileNotFoundError: If there is no config or no safetensors file.
        ValueError: If the config is not that of a causal language model with an embedding and a
            head, the files do not hold its matrices or are cut short, or the matrices have
            different heights.
    """
    base = str(Path(base).expanduser()) if Path(base).expanduser().is_dir() else base
    wanted = _parameter_names(base)
    files = _stored_names(base)
    found = [_find(name, files) for name in wanted]
    embedding, head = (None if name is None else _read(base, files[name], name) for name in found)
    if embedding is None:
        raise ValueError(
            f"{base!r} holds no {wanted[0]!r}, the embedding that its config asks for, but "
            f"{len(files)} other tensors: is it a whole model?"
        )
    if head is None or found[0] == found[1] or torch.equal(head, embedding):
        return StoredRows(embedding, None)
    if len(head) != len(embedding):
        raise ValueError(
            f"Expected an embedding and a head of one height, got {len(embedding)} and {len(head)} "
            f"rows in {base!r}."
        )
    return StoredRows(embedding, head)


def _parameter_names(base: str) -> tuple[str, str]:
    """Names of the embedding and the head in the model's class."""
    if _path(base, "config.json") is None:
        raise FileNotFoundError(
            f"{base!r} has no config.json: it is a tokenizer alone, which has no rows."
        )
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(
            # The library's message goes on with a list of all its classes.
            f"{base!r} is not a causal language model that transformers can build from its "
            f"config: {str(error).partition('Model type should be')[0].strip()}"
        ) from error
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if not isinstance(embedding, nn.Embedding) or not isinstance(head, nn.Linear):
        raise ValueError(f"{base!r} is a {type(model).__name__} without an embedding and a head.")
    # The state dict, unlike `named_parameters`, names both of a tied pair.
    modules = {id(module): name for name, module in model.named_modules()}
    return f"{modules[id(embedding)]}.weight", f"{modules[id(head)]}.weight"


def _stored_names(base: str) -> dict[str, str]:
    """The file of each stored tensor."""
    if (index := _path(base, _INDEX)) is not None:
        weight_map: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return weight_map
    single = _path(base, _SINGLE)
    if single is None:
        raise FileNotFoundError(
            f"{base!r} has neither {_SINGLE} nor {_INDEX}: its rows cannot be read. Save the model "
            "with save_pretrained, which writes them."
        )
    with _opened(single) as file:
        return dict.fromkeys(file.keys(), _SINGLE)


def _find(name: str, stored: dict[str, str]) -> str | None:
    """The stored name of a parameter: files may leave a prefix out (GPT-2) or hold one more."""
    if name in stored:
        return name
    near = [each for each in stored if name.endswith(f".{each}") or each.endswith(f".{name}")]
    if len(near) > 1:
        raise ValueError(f"Several tensors could be {name!r}: {sorted(near)[:5]}.")
    return near[0] if near else None


def _read(base: str, file: str, name: str) -> Tensor:
    path = _path(base, file)
    if path is None:
        raise FileNotFoundError(f"{base!r} lacks {file!r}, which its index says holds {name!r}.")
    with _opened(path) as opened:
        rows: Tensor = opened.get_tensor(name)
    return rows


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file; one that is cut short, which its header tells, is named."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(
            f"'{path}' is no whole safetensors file: {error}. Was its download or copy cut short?"
        ) from error


def _path(base: str, file: str) -> Path | None:
    found = cached_file(base, file, _raise_exceptions_for_missing_entries=False)
    return None if found is None else Path(found)
