"""Find the causal language model inside a module, and its two matrices, or say what is missing."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from lightning_vocab.rows.split import SplitEmbedding, SplitHead


def find_causal_lm(module: nn.Module, attribute: str | None = None) -> PreTrainedModel:
    """The one causal language model that ``module`` is or holds.

    Args:
        module: A model, or a module (a LightningModule) that holds one.
        attribute: Dotted name of the attribute that holds the model, where there are several.

    Raises:
        ValueError: If there is none, or more than one and no attribute names it.
    """
    root = module
    if attribute is not None:
        try:
            root = module.get_submodule(attribute)
        except AttributeError as error:
            raise ValueError(
                f"{type(module).__name__} has no submodule {attribute!r}: name the attribute that "
                "holds the causal language model."
            ) from error
    found = _outermost_models(root)
    if len(found) == 1:
        return found[0]
    names = ", ".join(type(model).__name__ for model in found) or "none"
    raise ValueError(
        f"Expected one causal language model with an embedding and a head in "
        f"{type(module).__name__}, found {names}. Name it with the attribute argument; a model "
        "must be a transformers PreTrainedModel such as AutoModelForCausalLM returns."
    )


def is_causal_lm(module: nn.Module) -> bool:
    """Whether ``module`` is a transformers model with an input embedding and an output head."""
    return (
        isinstance(module, PreTrainedModel)
        and module.can_generate()
        and not module.config.is_encoder_decoder
        and module.get_output_embeddings() is not None
    )


def find_split(model: nn.Module) -> tuple[SplitEmbedding, SplitHead] | None:
    """The split embedding and head of an expanded model, or None for an ordinary model."""
    embeddings = [part for part in model.modules() if isinstance(part, SplitEmbedding)]
    heads = [part for part in model.modules() if isinstance(part, SplitHead)]
    if not embeddings and not heads:
        return None
    if len(embeddings) != 1 or len(heads) != 1:
        raise ValueError(
            f"Expected one split embedding and one split head, found {len(embeddings)} and "
            f"{len(heads)}: was the model expanded twice?"
        )
    return embeddings[0], heads[0]


def replace_module(root: nn.Module, part: nn.Module, other: nn.Module) -> None:
    """Put ``other`` in every place of ``root`` where ``part`` is.

    Args:
        root: The module that holds ``part``, under one name or several.
        part: The submodule to be replaced, found by identity.
        other: What takes its place.

    Raises:
        ValueError: If ``root`` does not hold ``part``.
    """
    places = [name for name, held in root.named_modules(remove_duplicate=False) if held is part]
    if not places:
        raise ValueError(f"{type(root).__name__} holds no such {type(part).__name__}.")
    for name in places:
        root.set_submodule(name, other)


def _outermost_models(root: nn.Module) -> list[PreTrainedModel]:
    if is_causal_lm(root):
        assert isinstance(root, PreTrainedModel)
        return [root]
    found: list[PreTrainedModel] = []
    for child in root.children():
        for model in _outermost_models(child):
            if all(model is not known for known in found):
                found.append(model)
    return found
