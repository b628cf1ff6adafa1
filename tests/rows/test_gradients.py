"""The split model against an ordinary model of one matrix, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaForCausalLM

from lightning_vocab.functional.linear_cross_entropy import linear_cross_entropy
from lightning_vocab.initializers import Normal
from lightning_vocab.rows.expand import expand_model
from lightning_vocab.rows.locate import find_split
from lightning_vocab.rows.split import SplitRows
from tests.conftest import make_model
from tests.rows.bases import LAYOUTS, Layout, ids_of, make_case

TEXT = "the cat sat on the log textlog the catdog learns"


def make_pair(layout: Layout, *, tied: bool) -> tuple[LlamaForCausalLM, LlamaForCausalLM, Tensor]:
    """The split model, an ordinary one with the same values, and ids with old and new tokens."""
    base_rows, expanded, multiple = make_case(layout)
    split = make_model(base_rows, tied=tied, dtype=torch.float64)
    expand_model(split, expanded, Normal(0.3), pad_to_multiple_of=multiple)
    input_rows, output_rows = rows_of(split)
    merged = make_model(output_rows.num_rows, tied=tied, dtype=torch.float64)
    merged.load_state_dict(split.state_dict(), strict=False)
    with torch.no_grad():
        merged.model.embed_tokens.weight.copy_(input_rows.merged()[0])
        merged.lm_head.weight.copy_(output_rows.merged()[0])
    return split, merged, ids_of(expanded, TEXT)


def rows_of(model: LlamaForCausalLM) -> tuple[SplitRows, SplitRows]:
    found = find_split(model)
    assert found is not None
    return found[0].rows, found[1].rows


def backward_through_logits(model: LlamaForCausalLM, ids: Tensor) -> None:
    logits = model(ids).logits[0, :-1]
    torch.autograd.backward(F.cross_entropy(logits, ids[0, 1:]))


def assert_same_gradients(split: LlamaForCausalLM, merged: LlamaForCausalLM) -> None:
    matrices = merged.model.embed_tokens.weight, merged.lm_head.weight
    for rows, matrix in zip(rows_of(split), matrices, strict=True):
        expected, ids = matrix.grad, rows.new_ids
        assert expected is not None
        assert expected[ids].abs().max() > 1e-4
        assert torch.allclose(grad_of(rows.new), expected[ids], atol=1e-14)
        if not rows.old.requires_grad:
            assert rows.old.grad is None
            continue
        expected_old = expected[: rows.base_rows].clone()
        expected_old[rows.replaced_ids] = 0
        assert torch.allclose(grad_of(rows.old), expected_old, atol=1e-14)


def grad_of(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_old_and_new_rows_get_the_gradients_of_one_matrix(layout: Layout, tied: bool) -> None:
    split, merged, ids = make_pair(layout, tied=tied)
    for model in (split, merged):
        backward_through_logits(model, ids)
    assert_same_gradients(split, merged)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_frozen_old_rows_get_none_and_change_nothing_else(layout: Layout, tied: bool) -> None:
    split, merged, ids = make_pair(layout, tied=tied)
    for rows in rows_of(split):
        rows.old.requires_grad_(False)
    for model in (split, merged):
        backward_through_logits(model, ids)
    assert_same_gradients(split, merged)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_streamed_loss_gives_the_same_gradients(layout: Layout, tied: bool) -> None:
    split, merged, ids = make_pair(layout, tied=tied)
    backward_through_logits(merged, ids)
    head = rows_of(split)[1]
    hidden = split.model(ids).last_hidden_state[0, :-1]
    torch.autograd.backward(linear_cross_entropy(hidden, head.columns(ids[0, 1:]), head.blocks()))
    assert_same_gradients(split, merged)


def test_padding_rows_never_train() -> None:
    split, _, ids = make_pair("multiple", tied=True)
    backward_through_logits(split, ids)
    assert not rows_of(split)[0].padding.requires_grad
