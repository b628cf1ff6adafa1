"""Load the model that is grown, or say why it cannot be."""

from __future__ import annotations

from typing import Any

import torch
from lightning.fabric.utilities import rank_zero_warn
from transformers import AutoModelForCausalLM, PreTrainedModel

from lightning_vocab.initializers import Initializer, Keep, SubwordMean
from lightning_vocab.rows.locate import is_causal_lm

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def check_dtype(dtype: str) -> None:
    """Refuse a name of a dtype that `load_base_model` does not know.

    Raises:
        ValueError: If the name is unknown.
    """
    if dtype != "auto" and dtype not in _DTYPES:
        raise ValueError(f"Expected a dtype of {[*_DTYPES, 'auto']}, got {dtype!r}.")


def load_base_model(base: str, dtype: str = "float32") -> PreTrainedModel:
    """A causal language model from a local folder or the hub.

    Args:
        base: A Hugging Face folder or a hub id.
        dtype: ``float32``, ``bfloat16``, ``float16``, or ``auto`` for the checkpoint's own.

    Raises:
        ValueError: If the dtype has another name, nothing is found under ``base``, or what is found
            is not a whole causal language model with an embedding and a head, or sees later tokens.
    """
    check_dtype(dtype)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            base, dtype=_DTYPES.get(dtype, dtype), output_loading_info=True
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{base!r} gives no causal language model: expected 'demo', a folder with config.json "
            f"and weights, or a hub id that can be reached. {type(error).__name__}: {error}"
        ) from error
    model, report = loaded
    if report["missing_keys"]:
        raise ValueError(
            f"{base!r} is no whole causal language model: as {type(model).__name__} it lacks the "
            f"weights {sorted(report['missing_keys'])[:5]}, which would start at random."
        )
    if not is_causal_lm(model):
        raise ValueError(
            f"{base!r} is a {type(model).__name__}, which has no reachable embedding and head of a "
            "causal language model; encoders and encoder-decoders cannot be grown here."
        )
    assert isinstance(model, PreTrainedModel)
    if not _is_causal(model):
        raise ValueError(
            f"{base!r} loads as a {type(model).__name__} whose logits depend on later tokens: "
            "expected a causal language model, got an encoder, whose loss and bits per byte would "
            "mean nothing. Choose the folder of a decoder."
        )
    return model


def choose_initializer(wanted: Initializer | None, *, is_grown: bool) -> Initializer:
    """The initializer that was asked for, else what suits the base; replacing rows is warned of.

    Args:
        wanted: The initializer asked for.
        is_grown: Whether the base has rows for the new tokens already.
    """
    if wanted is None:
        return Keep() if is_grown else SubwordMean()
    if is_grown and not isinstance(wanted, Keep):
        rank_zero_warn(
            f"The base has grown already, and {type(wanted).__name__} replaces its new rows, "
            "trained or not. Leave the initializer out, or give Keep, to go on with them."
        )
    return wanted


def enable_checkpointing(model: PreTrainedModel) -> None:
    """Let the layers of a model compute their activations again in the backward pass.

    Raises:
        ValueError: If the model's code does not provide for that.
    """
    if not model.supports_gradient_checkpointing:
        raise ValueError(
            f"{type(model).__name__} has no gradient checkpointing: expected a model of "
            "transformers that supports it. Set gradient_checkpointing to false."
        )
    name = "activation_checkpointing_enable"  # as transformers 5 has come to call it
    enable = getattr(model, name, None) or model.gradient_checkpointing_enable
    # The reentrant form gives no gradient to layers whose input needs none: a frozen embedding.
    enable({"use_reentrant": False})


@torch.no_grad()
def _is_causal(model: PreTrainedModel) -> bool:
    """Whether the logits at the first of eight tokens stay when all later tokens change.

    Asked of the forward itself: configs name what makes a model causal in different ways. Another
    grouping of the tokens (mixtures of experts) may round differently, so square root of the
    dtype's precision is let through; what an encoder sees of later tokens is far more.
    """
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, torch.Tensor)
    num_rows = len(weight)
    ids = torch.arange(8, device=model.device) * max(1, num_rows // 8) % num_rows
    changed = (ids + 1) % num_rows
    changed[0] = ids[0]
    both = torch.stack([ids, changed])
    logits = model(input_ids=both, attention_mask=torch.ones_like(both), use_cache=False).logits
    one, other = logits[:, 0]
    bound = torch.finfo(one.dtype).eps ** 0.5 * one.abs().max()
    return not bool((one - other).abs().max() > bound)
