"""The embedding and the head of a stored model, read without loading the model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from lightning_vocab.initializers.stored_tensors import INDEX, SINGLE, StoredTensors, name_in


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
    stored = StoredTensors(base)
    wanted = _parameter_names(stored)
    if not stored.files:
        raise FileNotFoundError(
            f"{stored.base!r} has neither {SINGLE} nor {INDEX}: its rows cannot be read. Save the "
            "model with save_pretrained, which writes them."
        )
    embedding, head = map(stored.read, wanted)
    if embedding is None:
        raise ValueError(
            f"{stored.base!r} holds no {wanted[0]!r}, the embedding that its config asks for, but "
            f"{len(stored.files)} other tensors: is it a whole model?"
        )
    if head is None or torch.equal(head, embedding):
        return StoredRows(embedding, None)
    if len(head) != len(embedding):
        raise ValueError(
            f"Expected an embedding and a head of one height, got {len(embedding)} and {len(head)} "
            f"rows in {stored.base!r}."
        )
    return StoredRows(embedding, head)


def _parameter_names(stored: StoredTensors) -> tuple[str, str]:
    """Names of the embedding and the head in the model's class."""
    base = stored.base
    if stored.path("config.json") is None:
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
    return name_in(model, embedding, "weight"), name_in(model, head, "weight")
