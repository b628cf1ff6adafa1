"""Rows of a checkpoint read from its safetensors files, without loading the model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightning_vocab.rows.ties import is_tied


@dataclass(frozen=True)
class Matrices:
    """The rows of a model in order of id.

    Args:
        input: Input rows ``(rows, dim)``.
        output: Rows of the head ``(rows, dim)``; None where the model is tied.
        bias: Bias of the head ``(rows,)``, or None.
    """

    input: Tensor
    output: Tensor | None
    bias: Tensor | None

    def named(self) -> dict[str, Tensor]:
        """What there is, by name."""
        named = {"input rows": self.input, "head rows": self.output, "head bias": self.bias}
        return {name: values for name, values in named.items() if values is not None}


class StoredTensors:
    """The tensors of a folder by name; one is read when it is asked for.

    Args:
        folder: A Hugging Face folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def files(self) -> dict[str, Path]:
        """The file of each tensor; empty where the folder has no safetensors files.

        Raises:
            ValueError: If a file cannot be read.
        """
        index = self.folder / "model.safetensors.index.json"
        if index.is_file():
            weight_map: dict[str, str] = json.loads(index.read_text("utf-8"))["weight_map"]
            return {name: self.folder / file for name, file in weight_map.items()}
        single = self.folder / "model.safetensors"
        if not single.is_file():
            return {}
        try:
            with safe_open(single, "pt") as opened:
                return dict.fromkeys(opened.keys(), single)
        except SafetensorError as error:
            raise ValueError(f"{single} cannot be read, it is damaged: {error}") from error

    def read(self, name: str) -> Tensor | None:
        """One tensor, or None if it is not stored.

        Args:
            name: Its name.

        Raises:
            ValueError: If its file cannot be read.
        """
        if name not in self.files:
            return None
        try:
            with safe_open(self.files[name], "pt") as opened:
                found: Tensor = opened.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{self.files[name]} cannot be read: {error}") from error
        return found

    def of_module(self, model: PreTrainedModel, part: nn.Module, name: str) -> Tensor | None:
        """The tensor of one submodule, or None if it is not stored.

        Args:
            model: The model; its values do not matter.
            part: A submodule of it.
            name: Name of the tensor in the submodule.
        """
        for path, held in model.named_modules():
            if held is part:
                full = f"{path}.{name}"
                # Some folders (GPT-2) leave out the name of the backbone.
                short = full.removeprefix(f"{model.base_model_prefix}.")
                found = self.read(full)
                return self.read(short) if found is None else found
        return None

    def matrices_of(self, model: PreTrainedModel) -> Matrices | None:
        """The rows as stored, or None if they are not stored as safetensors.

        Args:
            model: A model of the folder's config; its values do not matter.
        """
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
        inputs = self.of_module(model, embedding, "weight")
        bias = self.of_module(model, head, "bias")
        if is_tied(model):
            # A tied model may be stored under the name of its head alone.
            inputs = self.of_module(model, head, "weight") if inputs is None else inputs
            return None if inputs is None else Matrices(inputs, None, bias)
        outputs = self.of_module(model, head, "weight")
        return None if inputs is None or outputs is None else Matrices(inputs, outputs, bias)
