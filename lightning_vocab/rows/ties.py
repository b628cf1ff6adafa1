"""Tied or not, by identity, and every Parameter once."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from transformers import PreTrainedModel

from lightning_vocab.rows.split import SplitEmbedding, SplitHead


def is_tied(model: PreTrainedModel) -> bool:
    """Whether embedding and head are the same Parameter, whatever the config says.

    Args:
        model: A causal language model, split or not.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(
        ...     vocab_size=8, hidden_size=4, intermediate_size=4, num_hidden_layers=1,
        ...     num_attention_heads=1, tie_word_embeddings=True)
        >>> is_tied(LlamaForCausalLM(config))
        True
    """
    return _matrix(model.get_input_embeddings()) is _matrix(model.get_output_embeddings())


def parameters_once(*modules: nn.Module) -> Iterator[nn.Parameter]:
    """Every Parameter of the modules once, however many names or modules it has.

    Args:
        *modules: Modules that may share Parameters with each other.
    """
    seen: set[int] = set()
    for module in modules:
        for parameter in module.parameters():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield parameter


def _matrix(part: nn.Module | None) -> object:
    if isinstance(part, SplitEmbedding | SplitHead):
        return part.rows.old
    return None if part is None else part.weight
