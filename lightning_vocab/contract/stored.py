"""The rows of a model, and those of a folder read without loading its model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel

from lightning_vocab.initializers.stored_tensors import StoredTensors, name_in
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


def stored_matrices(folder: Path, model: PreTrainedModel) -> Matrices | None:
    """The rows that a folder stores, or None if they are not stored as safetensors.

    Args:
        folder: A Hugging Face folder.
        model: A model of the folder's config; its values do not matter.

    Raises:
        FileNotFoundError: If a file that the folder's index names is missing.
        ValueError: If a file is cut short.
    """
    stored = StoredTensors(folder)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    inputs = stored.read(name_in(model, embedding, "weight"))
    bias = stored.read(name_in(model, head, "bias"))
    if is_tied(model) and inputs is not None:
        return Matrices(inputs, None, bias)
    outputs = stored.read(name_in(model, head, "weight"))
    if is_tied(model):
        # A tied model may be stored under the name of its head alone.
        return None if outputs is None else Matrices(outputs, None, bias)
    return None if inputs is None or outputs is None else Matrices(inputs, outputs, bias)
