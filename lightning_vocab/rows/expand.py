"""Give a base model rows for its new tokens, in place."""

from __future__ import annotations

import math
from typing import NamedTuple

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


class _Sizes(NamedTuple):
    """Heights of the old part, of the whole, and of what has no token behind the old part."""

    base_rows: int
    num_rows: int
    num_padding: int


_Biases = tuple[nn.Parameter | None, Tensor | None, Tensor | None]
_NO_BIASES: _Biases = (None, None, None)


@torch.no_grad()
def expand_model(
    model: nn.Module,
    expanded: ExpandedTokenizer,
    initializer: Initializer,
    *,
    is_grown: bool = False,
    pad_to_multiple_of: int | None = None,
    generator: torch.Generator | None = None,
) -> None:
    """Split the rows of ``model`` into old and new, and fill the new ones. The model is changed.

    The base's matrices become the old rows as they are: same Parameters, same values, and the
    logits of old tokens stay bit for bit. Ties stay ties. Rows never get fewer. Appended rows
    without a token get the mean of the base's rows (see `_split`) and never train. The config
    follows; a bos, eos or pad token that is new is entered there. A model that has grown already is
    cut where its base ended: views of its matrices become the old rows, and its new rows are what
    the initializer gives (`Keep`: those that it has). A model whose forward reads
    ``lm_head.weight`` itself (Mamba) is not supported: its first forward fails.

    Args:
        model: The base: a causal language model of transformers, or a module that holds one.
        expanded: The grown tokenizer with its manifest.
        initializer: Makes the rows of the new tokens.
        is_grown: Whether the model has rows for the new tokens already, as one that was exported
            after it had been expanded.
        pad_to_multiple_of: Makes the number of rows a multiple of this.
        generator: Randomness of the initializer. None is a generator of seed 0: all ranks agree.

    Raises:
        ValueError: If the model was expanded before, has no weights yet or does not fit the
            manifest; if the initializer gives rows of a wrong shape or rows that are not finite.
        TypeError: If the embedding or the head is of a kind that cannot be split.
    """
    lm = find_causal_lm(model)
    embedding, head = checked_parts(lm, expanded.expansion, is_grown=is_grown)
    context = _context(lm, expanded, embedding, head, generator)
    sizes = _sizes(context, pad_to_multiple_of, is_grown=is_grown)
    input_rows, output_rows = _splits(initializer, context, embedding, head, sizes)
    scale, padding_idx = scale_of(embedding), embedding.padding_idx
    replace_module(lm, embedding, SplitEmbedding(input_rows, scale, padding_idx))
    replace_module(lm, head, SplitHead(output_rows))
    _follow(lm, expanded, sizes.num_rows)


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


def _sizes(context: RowContext, pad_to_multiple_of: int | None, *, is_grown: bool) -> _Sizes:
    multiple = 1 if pad_to_multiple_of is None else pad_to_multiple_of
    if multiple < 1:
        raise ValueError(f"pad_to_multiple_of must be 1 or more: got {multiple}.")
    expansion, height = context.expansion, len(context.input_rows)
    needed = max(height, expansion.num_rows, expansion.new_ids[-1] + 1)
    num_rows = math.ceil(needed / multiple) * multiple
    base_rows = expansion.base_rows if is_grown else height
    behind = sum(id >= base_rows for id in expansion.new_ids)
    return _Sizes(base_rows, num_rows, num_rows - base_rows - behind)


def _splits(
    initializer: Initializer,
    context: RowContext,
    embedding: nn.Embedding,
    head: nn.Linear,
    sizes: _Sizes,
) -> tuple[SplitRows, SplitRows]:
    """The split rows of the embedding and of the head: one object where the model is tied."""
    inputs, outputs = _made_rows(initializer, context)
    biases = _made_biases(initializer, context, head.bias, sizes)
    if outputs is None:
        shared = _split(context, embedding.weight, inputs, sizes, biases)
        return shared, shared
    return (
        _split(context, embedding.weight, inputs, sizes, _NO_BIASES),
        _split(context, head.weight, outputs, sizes, biases),
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
    initializer: Initializer, context: RowContext, base: nn.Parameter | None, sizes: _Sizes
) -> _Biases:
    if base is None:
        return _NO_BIASES
    new = initializer.bias(context)
    _check_values(new, (context.num_new,), f"bias of {type(initializer).__name__}")
    return _old(base, sizes), _fresh(base, new), _padding(context, base, sizes)


def _split(
    context: RowContext, base: Tensor, new: Tensor, sizes: _Sizes, biases: _Biases
) -> SplitRows:
    """Split one matrix."""
    assert isinstance(base, nn.Parameter)
    return SplitRows(
        _old(base, sizes),
        _fresh(base, new),
        torch.tensor(context.expansion.new_ids, dtype=torch.long, device=base.device),
        _padding(context, base, sizes),
        old_bias=biases[0],
        new_bias=biases[1],
        padding_bias=biases[2],
    )


def _old(base: nn.Parameter, sizes: _Sizes) -> nn.Parameter:
    """The base's own Parameter, or a view of its first rows where it has grown already."""
    if sizes.base_rows == len(base):
        return base
    return nn.Parameter(base.detach()[: sizes.base_rows], requires_grad=base.requires_grad)


def _padding(context: RowContext, base: Tensor, sizes: _Sizes) -> Tensor:
    """Rows without a token: those that are there stay, others get the mean of rows that have one.

    By Jensen's inequality the logit of such a row is at most the logarithm of the mean of the n
    base tokens' exponentiated logits, so it takes no more than ``1 / (n + 1)`` of the probability,
    and m of them ``m / (n + m)``, whatever the hidden state. Zeros or small random rows have no
    such bound: where the base's logits are negative they would win nearly all of it.
    """
    is_empty = torch.ones(sizes.num_rows - sizes.base_rows, dtype=torch.bool, device=base.device)
    new_ids = torch.tensor(context.expansion.new_ids, device=base.device)
    is_empty[new_ids[new_ids >= sizes.base_rows] - sizes.base_rows] = False
    stored = base.detach()[sizes.base_rows :][is_empty[: len(base) - sizes.base_rows]]
    mean = mean_row(base.detach(), context.base_ids)
    fresh = mean.expand(sizes.num_padding - len(stored), *mean.shape)
    return torch.cat([stored, _like(base, fresh)])


def _fresh(old: Tensor, values: Tensor) -> Tensor:
    """A copy of ``values`` beside the old rows; `SplitRows` keeps no new row in half precision."""
    dtype = torch.promote_types(old.dtype, torch.float32)
    return torch.empty(values.shape, dtype=dtype, device=old.device).copy_(values)


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
