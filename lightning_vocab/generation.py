"""Text that a model goes on with."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightning_vocab.uncompiled import uncompiled


@uncompiled
def continuations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    batch: Mapping[str, Tensor],
    max_new_tokens: int,
) -> list[str]:
    """Continue each prompt greedily; the continuations as text.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        batch: ``input_ids`` and, where rows are padded (in front), ``attention_mask``; both
            ``(batch, time)``.
        max_new_tokens: Length of a continuation.
    """
    pad = tokenizer.pad_token_id
    output = model.generate(  # type: ignore[operator]  # a mixin, untyped
        input_ids=batch["input_ids"],
        attention_mask=batch.get("attention_mask"),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=tokenizer.eos_token_id if pad is None else pad,
    )
    continued = output[:, batch["input_ids"].shape[1] :]
    return tokenizer.batch_decode(continued, skip_special_tokens=True)
