"""Give a base model rows for its new tokens, in place."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightning_vocab.initializers.base import Initializer, RowContext
from lightning_vocab.initializers.moments import mean_row
from lightning_vocab.rows.locate import find_causal_lm, replace_module
from lightning_vocab.rows.requirements import checked_parts, scale_of
from lightning_vocab.rows.split import SplitEmbedding, SplitHead, SplitRows
from lightning_vocab.rows.ties import is_tied
from lightning_vocab.vocabulary.expansion import ExpandedTokenizer

_Biases = tuple[nn.Parameter | None, Tensor | None, Tensor | None]
_NO_BIASES: _Biases = (None, None, None)


@torch.no_grad()
def expand_model(
    model: nn.Module,
    expanded: ExpandedTokenizer,
    initializer: Initializer,
    *,
    pad_to_multiple_of: int | None = None,
    generator: torch.Generator | None = None,
) -> None:
    """Split the rows of ``model`` into old and new, and fill the new ones. The model is changed.

    The base's matrices become the old rows as they are: same Parameters, same values, and the
    logits of old tokens stay bit for bit. Ties stay ties. Rows never get fewer. Appended rows
    without a token get the mean of the base's rows (see `_split`) and never train. The config
    follows; a bos, eos or pad token that is new is entered there. A model whose forward reads
    ``lm_head.weight`` itself (Mamba) is not supported: its first forward fails.

    Args:
        model: The base: a causal language model of transformers, or a module that holds one.
        expanded: The grown tokenizer with its manifest.
        initializer: Makes the rows of the new tokens.
        pad_to_multiple_of: Makes the number of rows a multiple of this.
        generator: Randomness of the initializer. None is a generator of seed 0: all ranks agree.

    Raises:
        ValueError: If the model was expanded before, has no weights yet or does not fit the
            manifest; if the initializer gives rows of a wrong shape or rows that are not finite.
        TypeError: If the embedding or the head is of a kind that cannot be split.
    """
    lm = find_causal_lm(model)
    embedding, head = checked_parts(lm, expanded.expansion)
    context = _context(lm, expanded, embedding, head, generator)
    num_rows = _height(context, pad_to_multiple_of)
    input_rows, output_rows = _splits(initializer, context, embedding, head, num_rows)
    scale, padding_idx = scale_of(embedding), embedding.padding_idx
    replace_module(lm, embedding, SplitEmbedding(input_rows, scale, padding_idx))
    replace_module(lm, head, SplitHead(output_rows))
    _follow(lm, expanded, num_rows)


def _context(
    model: PreTrainedModel,
    expanded: ExpandedTokenizer,
    embedding: nn.Embedding,
    head: nn.Linear,
    generator: torch.Generator | None,
) -> RowContext:
    return RowContext(
        expansion=expanded.expansion,
        tokenizer=expanded.tokenizer,
        input_rows=embedding.weight.detach(),
        output_rows=None if is_tied(model) else head.weight.detach(),
        output_bias=None if head.bias is None else head.bias.detach(),
        generator=torch.Generator("cpu").manual_seed(0) if generator is None else generator,
        model=model,
    )


def _height(context: RowContext, pad_to_multiple_of: int | None) -> int:
    multiple = 1 if pad_to_multiple_of is None else pad_to_multiple_of
    if multiple < 1:
        raise ValueError(f"pad_to_multiple_of must be 1 or more: got {multiple}.")
    expansion = context.expansion
    needed = max(len(context.input_rows), expansion.num_rows, expansion.new_ids[-1] + 1)
    return math.ceil(needed / multiple) * multiple


def _num_padding(context: RowContext, num_rows: int) -> int:
    base_rows = len(context.input_rows)
    behind = sum(id >= base_rows for id in context.expansion.new_ids)
    return num_rows - base_rows - behind


def _splits(
    initializer: Initializer,
    context: RowContext,
    embedding: nn.Embedding,
    head: nn.Linear,
    num_rows: int,
) -> tuple[SplitRows, SplitRows]:
    """The split rows of the embedding and of the head: one object where the model is tied."""
    inputs, outputs = _made_rows(initializer, context)
    biases = _made_biases(initializer, context, head.bias, num_rows)
    if outputs is None:
        shared = _split(context, embedding.weight, inputs, num_rows, biases)
        return shared, shared
    return (
        _split(context, embedding.weight, inputs, num_rows, _NO_BIASES),
        _split(context, head.weight, outputs, num_rows, biases),
    )


def _made_rows(initializer: Initializer, context: RowContext) -> tuple[Tensor, Tensor | None]:
    inputs, outputs = initializer.rows(context)
    name, tied = type(initializer).__name__, context.output_rows is None
    if (outputs is None) != tied:
        raise ValueError(
            f"{name} must give output rows where the model is untied and None where it is tied: "
            f"the model is {'tied' if tied else 'untied'}, got {type(outputs).__name__}."
        )
    shape = (context.num_new, context.input_rows.shape[1])
    _check_values(inputs, shape, f"input rows of {name}")
    if outputs is not None and context.output_rows is not None:
        shape = (context.num_new, context.output_rows.shape[1])
        _check_values(outputs, shape, f"output rows of {name}")
    return inputs, outputs


def _made_biases(
    initializer: Initializer, context: RowContext, old: nn.Parameter | None, num_rows: int
) -> _Biases:
    if old is None:
        return _NO_BIASES
    new = initializer.bias(context)
    _check_values(new, (context.num_new,), f"bias of {type(initializer).__name__}")
    mean = mean_row(old.detach(), context.base_ids)
    return old, _like(old, new), _like(old, mean.expand(_num_padding(context, num_rows)))


def _split(
    context: RowContext, old: Tensor, new: Tensor, num_rows: int, biases: _Biases
) -> SplitRows:
    """Split one matrix; rows without a token get the mean of the base rows that have one.

    By Jensen's inequality the logit of such a row is at most the logarithm of the mean of the n
    base tokens' exponentiated logits, so it takes no more than ``1 / (n + 1)`` of the probability,
    and m of them ``m / (n + m)``, whatever the hidden state. Zeros or small random rows have no
    such bound: where the base's logits are negative they would win nearly all of it.
    """
    assert isinstance(old, nn.Parameter)
    padding = mean_row(old.detach(), context.base_ids)
    return SplitRows(
        old,
        _like(old, new),
        torch.tensor(context.expansion.new_ids, dtype=torch.long, device=old.device),
        _like(old, padding.expand(_num_padding(context, num_rows), -1)),
        old_bias=biases[0],
        new_bias=biases[1],
        padding_bias=biases[2],
    )


def _like(old: Tensor, values: Tensor) -> Tensor:
    """A copy of ``values``, stored like the old rows."""
    return torch.empty(values.shape, dtype=old.dtype, device=old.device).copy_(values)


def _check_values(values: Tensor, shape: tuple[int, ...], name: str) -> None:
    if tuple(values.shape) != shape:
        raise ValueError(f"Expected {name} of shape {shape}, got {tuple(values.shape)}.")
    if not values.isfinite().all():
        count = int((~values.isfinite()).sum())
        raise ValueError(f"Expected finite {name}, got {count} values that are nan or infinite.")


def _follow(model: PreTrainedModel, expanded: ExpandedTokenizer, num_rows: int) -> None:
    """Bring config and generation config in line with the grown tokenizer."""
    config = model.config.get_text_config()
    config.vocab_size = num_rows
    model.vocab_size = num_rows
    new_ids = set(expanded.expansion.new_ids)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        id = getattr(expanded.tokenizer, name)
        # The base's own ids do not move, and what the config says about them stays.
        if id not in new_ids:
            continue
        setattr(config, name, id)
        before = getattr(model.generation_config, name)
        if name == "eos_token_id" and before is not None:
            # The base's end of text still ends a text; the new one does so, too.
            id = [*(before if isinstance(before, list) else [before]), id]
        setattr(model.generation_config, name, id)
    _unsuppress(model, new_ids)


def _unsuppress(model: PreTrainedModel, new_ids: set[int]) -> None:
    """Let the model write the new tokens: the base may forbid the rows that had no token."""
    suppressed = model.generation_config.suppress_tokens
    if suppressed is not None:
        model.generation_config.suppress_tokens = [
            id for id in suppressed if id not in new_ids
        ] or None
