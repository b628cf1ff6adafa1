"""What a base must be so that its rows can be split: checked before any work."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from lightning_vocab.rows.locate import find_split
from lightning_vocab.vocabulary.expansion import VocabularyExpansion

_SUPPORTED = (
    "Supported are torch.nn.Embedding without max_norm, scale_grad_by_freq and sparse, subclasses "
    "of it that only multiply by embed_scale (Gemma, Bart), and torch.nn.Linear heads."
)


def checked_parts(
    model: PreTrainedModel, expansion: VocabularyExpansion, *, is_grown: bool = False
) -> tuple[nn.Embedding, nn.Linear]:
    """The embedding and the head of a base that can be expanded.

    Args:
        model: The base model.
        expansion: The manifest of the grown vocabulary.
        is_grown: Whether the model has the rows of the new tokens already.

    Raises:
        ValueError: If the model was expanded already, has no weights yet, or does not fit the
            manifest.
        TypeError: If the embedding or the head is of an unsupported kind.
    """
    _check_state(model)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if not isinstance(embedding, nn.Embedding) or type(head) is not nn.Linear:
        raise TypeError(
            f"Cannot split an embedding of class {type(embedding).__name__} with a head of class "
            f"{type(head).__name__}. {_SUPPORTED}"
        )
    _check_matrices(embedding, head)
    _check_embedding(embedding)
    _check_rows(embedding.num_embeddings, expansion, is_grown=is_grown)
    _check_other_tables(model, embedding)
    return embedding, head


def scale_of(embedding: nn.Embedding) -> Tensor | float | None:
    """Factor of the embedding's output: a number, a scalar buffer, or None."""
    scale: Tensor | float | None = getattr(embedding, "embed_scale", None)
    return scale


def _check_state(model: PreTrainedModel) -> None:
    if find_split(model) is not None:
        raise ValueError(
            "Expected a base model, got one that was expanded already. Expand the base once, with "
            "all new tokens, or export the model and expand the export."
        )
    on_meta = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if on_meta:
        raise ValueError(
            f"Expected a model with weights, got {len(on_meta)} parameters on the meta device "
            f"({on_meta[0]}, …). Load the weights before the model is expanded."
        )


def _check_matrices(embedding: nn.Embedding, head: nn.Linear) -> None:
    kinds = (embedding.weight.dtype, head.weight.dtype)
    if not all(kind.is_floating_point for kind in kinds):
        raise TypeError(
            f"Expected floating-point rows, got {kinds[0]} and {kinds[1]}: expand a base that is "
            "not quantized."
        )
    if embedding.num_embeddings != head.out_features:
        raise ValueError(
            f"Expected an embedding and a head of one height, got {embedding.num_embeddings} and "
            f"{head.out_features} rows."
        )


@torch.no_grad()
def _check_embedding(embedding: nn.Embedding) -> None:
    options = ("max_norm", "scale_grad_by_freq", "sparse")
    used = [name for name in options if getattr(embedding, name)]
    if used:
        raise TypeError(f"Cannot split an embedding that uses {', '.join(used)}. {_SUPPORTED}")
    if type(embedding) is nn.Embedding:
        return
    # A subclass is known by what it does, not by its name.
    ids = torch.arange(min(8, embedding.num_embeddings), device=embedding.weight.device)
    expected, scale = F.embedding(ids, embedding.weight), scale_of(embedding)
    if scale is not None:
        expected = expected * (scale.to(expected.dtype) if isinstance(scale, Tensor) else scale)
    if not torch.equal(embedding(ids), expected):
        raise TypeError(
            f"Cannot split an embedding of class {type(embedding).__name__}: it does more than "
            f"look up rows and scale them. {_SUPPORTED}"
        )


def _check_rows(rows: int, expansion: VocabularyExpansion, *, is_grown: bool) -> None:
    if is_grown:
        if rows < expansion.num_rows:
            raise ValueError(
                f"Expected a model that has grown already, with {expansion.num_rows} rows or more, "
                f"as the manifest says, got one of {rows} rows: its tokenizer has grown, the model "
                "has not. Take the folder that was exported, or the base."
            )
        return
    # A manifest that was made from a tokenizer alone knows nothing of the model's padded rows.
    is_tokenizer_only = expansion.base_rows == expansion.base_len
    if rows == expansion.base_rows or (is_tokenizer_only and rows > expansion.base_rows):
        return
    raise ValueError(
        f"Expected a base model of {expansion.base_rows} rows ({expansion.base_len} tokens), as "
        f"the manifest says, got one of {rows} rows. Take the base that the vocabulary was made "
        "for, or make the vocabulary for this base."
    )


def _check_other_tables(model: PreTrainedModel, embedding: nn.Embedding) -> None:
    config = model.config.get_text_config()
    heights = {embedding.num_embeddings, getattr(config, "vocab_size_per_layer_input", None)}
    tables = [
        name
        for name, part in model.named_modules()
        if isinstance(part, nn.Embedding)
        and part is not embedding
        and part.weight is not embedding.weight
        and part.num_embeddings in heights
    ]
    if tables:
        raise TypeError(
            f"Cannot expand a model that looks token ids up in more than one table: "
            f"{', '.join(tables)} (besides the input embedding) would have no rows for new tokens."
        )
