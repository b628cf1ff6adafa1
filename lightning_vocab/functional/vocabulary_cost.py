"""What rows of a vocabulary cost: parameters, memory, and compute per byte of text.

Everything is arithmetic on whole numbers. ``d`` is the width of a row, ``V`` the number of rows of
a matrix, ``m`` the rows that are added, ``B`` the backbone's parameters that a token is multiplied
with. A multiplication with its addition counts as two FLOP.
"""

from __future__ import annotations

from dataclasses import dataclass

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float8": 1}
"""Bytes of one value."""

ADAMW_BYTES = 12
"""AdamW beside bf16 weights: a float32 master copy and two float32 moments of each parameter."""

ADAMW_BYTES_WITHOUT_MASTER = 8
"""AdamW on float32 weights, which need no master copy: two float32 moments of each parameter."""


@dataclass(frozen=True)
class VocabularyCost:
    """What ``num_added_rows`` rows cost a model, in numbers that do not depend on the text.

    Args:
        num_added_rows: Rows added to the embedding, and to the head where it is untied.
        added_parameters: Parameters added.
        weight_bytes: Memory of these parameters, when served and when trained.
        adamw_bytes: Memory of AdamW's state for them.
        head_flop_per_token: FLOP of the head for one token, with all rows, forward.
        logits_bytes: Memory of the logits of one batch, with all rows.
    """

    num_added_rows: int
    added_parameters: int
    weight_bytes: int
    adamw_bytes: int
    head_flop_per_token: int
    logits_bytes: int


def added_parameters(
    num_added_rows: int, hidden_size: int, *, is_tied: bool, has_head_bias: bool = False
) -> int:
    """Parameters of new rows: ``m * d`` tied, ``2 * m * d`` untied, and ``m`` for a head bias.

    Args:
        num_added_rows: Rows that are added to each matrix.
        hidden_size: Width of a row.
        is_tied: Whether the embedding is the head as well.
        has_head_bias: Whether the head adds a number of its own to each logit.

    Raises:
        ValueError: If a number is negative or the width is not positive.

    Example:
        >>> added_parameters(10_000, 4096, is_tied=True)
        40960000
    """
    _check(num_added_rows=(num_added_rows, 0), hidden_size=(hidden_size, 1))
    matrices = 1 if is_tied else 2
    return num_added_rows * (matrices * hidden_size + has_head_bias)


def parameter_bytes(num_parameters: int, dtype: str = "bfloat16") -> int:
    """Memory of parameters in bytes.

    Args:
        num_parameters: Number of values.
        dtype: One of `DTYPE_BYTES`.

    Raises:
        ValueError: If the dtype is unknown or the number is negative.

    Example:
        >>> parameter_bytes(40_960_000, "bfloat16")
        81920000
    """
    _check(num_parameters=(num_parameters, 0))
    return num_parameters * _bytes_of(dtype)


def adamw_bytes(num_parameters: int, bytes_per_parameter: int = ADAMW_BYTES) -> int:
    """Memory of AdamW's state in bytes, weights and gradients aside.

    Args:
        num_parameters: Parameters that are trained.
        bytes_per_parameter: 12 (`ADAMW_BYTES`) for a float32 master copy and two float32 moments, 8
            (`ADAMW_BYTES_WITHOUT_MASTER`) where the weights are float32 themselves.

    Raises:
        ValueError: If a number is negative.

    Example:
        >>> adamw_bytes(40_960_000)
        491520000
    """
    _check(num_parameters=(num_parameters, 0), bytes_per_parameter=(bytes_per_parameter, 0))
    return num_parameters * bytes_per_parameter


def logits_bytes(batch_size: int, time: int, num_rows: int, dtype: str = "bfloat16") -> int:
    """Memory of logits ``(batch, time, rows)`` in bytes, where a loss builds them whole.

    Their gradient takes as much again, and a softmax in float32 twice as much. The streamed loss
    (`linear_cross_entropy`) never builds them.

    Args:
        batch_size: Rows of text in a batch.
        time: Tokens of a row of text.
        num_rows: Rows of the head.
        dtype: One of `DTYPE_BYTES`.

    Raises:
        ValueError: If the dtype is unknown or a number is not positive.

    Example:
        >>> round(logits_bytes(8, 2048, 150_000) / 1e9, 1)
        4.9
    """
    _check(batch_size=(batch_size, 1), time=(time, 1), num_rows=(num_rows, 1))
    return batch_size * time * num_rows * _bytes_of(dtype)


def head_flop_per_token(num_rows: int, hidden_size: int) -> int:
    """FLOP of the head for one token, forward: ``2 * V * d``. The embedding is a look-up, and free.

    Args:
        num_rows: Rows of the head.
        hidden_size: Width of a row.

    Raises:
        ValueError: If a number is not positive.
    """
    _check(num_rows=(num_rows, 1), hidden_size=(hidden_size, 1))
    return 2 * num_rows * hidden_size


def flop_per_token(num_backbone_parameters: int, num_rows: int, hidden_size: int) -> int:
    """FLOP of one token, forward: ``2 * B + 2 * V * d``.

    ``2 * B`` follows Kaplan et al. (2020, arXiv 2001.08361, equation 2.2) without its term for
    attention, which is small while the context is shorter than some twelve widths. That term is
    the backbone's: leaving it out makes new rows look dearer than they are. Training takes three
    times as much, before and after, so that no break-even depends on it.

    Args:
        num_backbone_parameters: Parameters outside the two matrices that a token is multiplied
            with; of a mixture of experts, those that are active.
        num_rows: Rows of the head.
        hidden_size: Width of a row.

    Raises:
        ValueError: If a number is too small.
    """
    _check(num_backbone_parameters=(num_backbone_parameters, 0))
    return 2 * num_backbone_parameters + head_flop_per_token(num_rows, hidden_size)


def break_even_ratio(
    num_backbone_parameters: int, num_rows: int, num_added_rows: int, hidden_size: int
) -> float:
    """Tokens after over tokens before at which new rows pay: below it, compute per byte sinks.

    ``(2 B + 2 V d) / (2 B + 2 (V + m) d)``: FLOP per raw byte are FLOP per token times tokens per
    byte, so a text must need fewer than this share of its former tokens.

    Args:
        num_backbone_parameters: See `flop_per_token`.
        num_rows: Rows of the head before.
        num_added_rows: Rows that are added.
        hidden_size: Width of a row.

    Returns:
        A number from 0 to 1; 1 where no row is added.

    Raises:
        ValueError: If a number is too small.

    Example:
        >>> break_even_ratio(900, 100, 100, 1)  # (1800 + 200) / (1800 + 400)
        0.9090909090909091
    """
    _check(num_added_rows=(num_added_rows, 0))
    before = flop_per_token(num_backbone_parameters, num_rows, hidden_size)
    return before / (before + 2 * num_added_rows * hidden_size)


def vocabulary_cost(
    *,
    num_rows: int,
    num_added_rows: int,
    hidden_size: int,
    is_tied: bool,
    has_head_bias: bool = False,
    batch_size: int = 8,
    time: int = 2048,
    dtype: str = "bfloat16",
    adamw_bytes_per_parameter: int = ADAMW_BYTES,
) -> VocabularyCost:
    """What rows cost that are added to a model's ``num_rows``.

    Args:
        num_rows: Rows before.
        num_added_rows: Rows that are added.
        hidden_size: Width of a row.
        is_tied: Whether the embedding is the head as well.
        has_head_bias: Whether the head has a bias.
        batch_size: Rows of text in a batch.
        time: Tokens of a row of text.
        dtype: Dtype of weights and logits.
        adamw_bytes_per_parameter: See `adamw_bytes`.

    Raises:
        ValueError: If a number is too small or the dtype is unknown.

    Example:
        >>> cost = vocabulary_cost(
        ...     num_rows=140_000, num_added_rows=10_000, hidden_size=4096, is_tied=True)
        >>> cost.added_parameters, cost.weight_bytes, cost.adamw_bytes, cost.logits_bytes
        (40960000, 81920000, 491520000, 4915200000)
    """
    parameters = added_parameters(
        num_added_rows, hidden_size, is_tied=is_tied, has_head_bias=has_head_bias
    )
    return VocabularyCost(
        num_added_rows=num_added_rows,
        added_parameters=parameters,
        weight_bytes=parameter_bytes(parameters, dtype),
        adamw_bytes=adamw_bytes(parameters, adamw_bytes_per_parameter),
        head_flop_per_token=head_flop_per_token(num_rows + num_added_rows, hidden_size),
        logits_bytes=logits_bytes(batch_size, time, num_rows + num_added_rows, dtype),
    )


def _bytes_of(dtype: str) -> int:
    if dtype not in DTYPE_BYTES:
        raise ValueError(f"Expected a dtype of {sorted(DTYPE_BYTES)}, got {dtype!r}.")
    return DTYPE_BYTES[dtype]


def _check(**values: tuple[int, int]) -> None:
    for name, (value, least) in values.items():
        if value < least:
            raise ValueError(f"Expected {name} of at least {least}, got {value}.")
