from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_vocab.initializers.normal import Normal
from lightning_vocab.rows.expand import expand_model
from lightning_vocab.rows.ties import is_tied, parameters_once
from tests.conftest import make_model, make_tokenizer
from tests.expanded import make_expanded


@pytest.mark.parametrize("tied", [True, False])
def test_ties_are_seen_before_and_after_the_split(tied: bool) -> None:
    model = make_model(tied=tied)
    assert is_tied(model) is tied
    expand_model(model, make_expanded(make_tokenizer(), ["catdog"]), Normal())
    assert is_tied(model) is tied


def test_equal_values_are_no_tie_whatever_the_config_says() -> None:
    model = make_model(tied=True)
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
    assert not is_tied(model)


def test_one_parameter_is_a_tie_whatever_the_config_says() -> None:
    model = make_model(tied=False)
    model.lm_head.weight = model.model.embed_tokens.weight
    assert is_tied(model)


def test_a_shared_parameter_comes_once() -> None:
    first, second = nn.Linear(2, 3), nn.Linear(2, 3)
    second.weight = first.weight
    found = list(parameters_once(first, second, first))
    assert [id(parameter) for parameter in found] == [
        id(first.weight),
        id(first.bias),
        id(second.bias),
    ]
