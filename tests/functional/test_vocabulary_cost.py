from __future__ import annotations

from typing import Any

import pytest

from lightning_vocab.functional.vocabulary_cost import (
    ADAMW_BYTES_WITHOUT_MASTER,
    adamw_bytes,
    added_parameters,
    break_even_ratio,
    flop_per_token,
    head_flop_per_token,
    logits_bytes,
    parameter_bytes,
    vocabulary_cost,
)


def test_ten_thousand_tied_rows_of_4096_are_41_million_parameters() -> None:
    parameters = added_parameters(10_000, 4096, is_tied=True)
    assert parameters == 40_960_000
    assert parameter_bytes(parameters, "bfloat16") == 81_920_000  # 82 MB
    assert adamw_bytes(parameters) == 491_520_000  # 492 MB at 12 bytes


def test_untied_rows_count_twice_and_a_head_bias_once_a_row() -> None:
    assert added_parameters(10, 8, is_tied=False) == 160
    assert added_parameters(10, 8, is_tied=False, has_head_bias=True) == 170
    assert added_parameters(10, 8, is_tied=True, has_head_bias=True) == 90


def test_logits_of_8_by_2048_by_150000_in_bf16_take_4_9_gigabytes() -> None:
    assert logits_bytes(8, 2048, 150_000, "bfloat16") == 4_915_200_000
    assert logits_bytes(8, 2048, 150_000, "float32") == 9_830_400_000


def test_bytes_follow_the_dtype_and_the_master_copy() -> None:
    assert [parameter_bytes(3, name) for name in ("float32", "float16", "float8")] == [12, 6, 3]
    assert adamw_bytes(3, ADAMW_BYTES_WITHOUT_MASTER) == 24


def test_a_token_costs_two_flop_for_each_backbone_parameter_and_head_weight() -> None:
    # A head of 100 rows of width 8: 800 products and 800 sums.
    assert head_flop_per_token(100, 8) == 1600
    assert flop_per_token(1000, 100, 8) == 2000 + 1600


@pytest.mark.parametrize(("ratio", "is_cheaper"), [(-1e-6, True), (1e-6, False)])
def test_compute_per_byte_sinks_exactly_below_the_break_even(
    ratio: float, is_cheaper: bool
) -> None:
    backbone, rows, added, width, before = 5_000, 300, 40, 16, 0.4
    after = before * (break_even_ratio(backbone, rows, added, width) + ratio)
    cost_before = before * flop_per_token(backbone, rows, width)
    cost_after = after * flop_per_token(backbone, rows + added, width)
    assert (cost_after < cost_before) is is_cheaper


def test_rows_that_cost_no_compute_break_even_at_once() -> None:
    assert break_even_ratio(5_000, 300, 0, 16) == 1.0


def test_the_cost_of_a_vocabulary_holds_all_figures_of_its_parts() -> None:
    cost = vocabulary_cost(num_rows=140_000, num_added_rows=10_000, hidden_size=4096, is_tied=False)
    assert cost.added_parameters == 81_920_000
    assert cost.weight_bytes == 163_840_000
    assert cost.adamw_bytes == 983_040_000
    assert cost.logits_bytes == 4_915_200_000
    assert cost.head_flop_per_token == 2 * 150_000 * 4096


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "int3"}, "Expected a dtype of"),
        ({"hidden_size": 0}, "hidden_size of at least 1, got 0"),
        ({"num_added_rows": -1}, "num_added_rows of at least 0, got -1"),
        ({"batch_size": 0}, "batch_size of at least 1, got 0"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"num_rows": 9, "num_added_rows": 1, "hidden_size": 4, "is_tied": True}
    with pytest.raises(ValueError, match=message):
        vocabulary_cost(**{**given, **changes})
