"""What `lightning-vocab plan` knows of the model, from its config and from the user."""

from __future__ import annotations

from dataclasses import replace

from lightning_vocab.planning.points import Budget
from lightning_vocab.rows.model_size import ModelSize, read_model_size

_DEFAULT_BLOCK = 2048


def known_size(
    base: str, hidden_size: int | None, tied: bool | None, num_backbone_parameters: int | None
) -> ModelSize:
    """The model's size; what the user says stands for what the config says.

    Args:
        base: A Hugging Face folder or a hub id.
        hidden_size: Width of a row, or None for the config's.
        tied: Whether embedding and head are one matrix, or None for the config's word.
        num_backbone_parameters: Parameters that a token is multiplied with, or None for the
            config's.

    Raises:
        ValueError: If a number is not positive, or a width is given and nothing says whether the
            matrices are tied.
    """
    said = {
        "hidden_size": hidden_size,
        "is_tied": tied,
        "num_backbone_parameters": num_backbone_parameters,
    }
    given = {name: value for name, value in said.items() if value is not None}
    _check(hidden_size=hidden_size, num_backbone_parameters=num_backbone_parameters)
    size = read_model_size(base)
    size = replace(size, **given)  # type: ignore[arg-type]  # the values fit their names
    if size.hidden_size is not None and size.is_tied is None:
        raise ValueError(
            f"hidden_size={size.hidden_size} is given, but not whether embedding and head are one "
            f"matrix, and {size.unknown_because}: give --tied true or --tied false."
        )
    return size


def make_budget(
    model: ModelSize,
    training_tokens: float | None,
    floor: int,
    batch_size: int,
    block_size: int | None,
) -> Budget:
    """The budget, checked against the model's context.

    Args:
        model: The model's size.
        training_tokens: Tokens to train on, or None for one pass over the text.
        floor: Occurrences that a new token needs.
        batch_size: Rows of text in a batch.
        block_size: Tokens of a row, or None for 2,048 or the model's shorter context.

    Raises:
        ValueError: If a number is not positive, or a row is longer than the context.
    """
    _check(training_tokens=training_tokens, floor=floor, batch_size=batch_size)
    _check(block_size=block_size)
    context = model.context or block_size or _DEFAULT_BLOCK
    if block_size is not None and block_size > context:
        raise ValueError(f"Expected a block_size of at most {context}, the context of the base.")
    return Budget(training_tokens, floor, batch_size, block_size or min(_DEFAULT_BLOCK, context))


def _check(**numbers: float | None) -> None:
    for name, number in numbers.items():
        if number is not None and number <= 0:
            raise ValueError(f"Expected {name} above 0, got {number}.")
