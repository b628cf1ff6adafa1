from __future__ import annotations

from typing import Any

import pytest
from torch import nn
from transformers import LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from lightning_vocab.rows.locate import find_causal_lm, find_split, is_causal_lm, replace_module
from tests.conftest import make_model


class Holder(nn.Module):
    def __init__(self, **models: nn.Module) -> None:
        super().__init__()
        for name, model in models.items():
            self.add_module(name, model)


def test_a_model_is_found_as_itself(model: LlamaForCausalLM) -> None:
    assert find_causal_lm(model) is model


def test_a_model_inside_a_module_is_found(model: LlamaForCausalLM) -> None:
    assert find_causal_lm(Holder(inner=Holder(lm=model))) is model


def test_a_model_held_twice_is_one_model(model: LlamaForCausalLM) -> None:
    assert find_causal_lm(Holder(student=model, alias=Holder(lm=model))) is model


def test_two_models_need_a_name() -> None:
    student, teacher = make_model(), make_model()
    holder = Holder(student=student, inner=Holder(teacher=teacher))
    with pytest.raises(ValueError, match="found LlamaForCausalLM, LlamaForCausalLM"):
        find_causal_lm(holder)
    assert find_causal_lm(holder, "inner.teacher") is teacher


def test_a_wrong_name_is_an_error(model: LlamaForCausalLM) -> None:
    with pytest.raises(ValueError, match="Holder has no submodule 'techer'"):
        find_causal_lm(Holder(teacher=model), "techer")


def test_a_model_without_a_head_is_not_found(model: LlamaForCausalLM) -> None:
    with pytest.raises(ValueError, match="found none"):
        find_causal_lm(model.model)


def test_an_encoder_decoder_is_no_causal_language_model() -> None:
    size: dict[str, Any] = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    assert not is_causal_lm(T5ForConditionalGeneration(T5Config(vocab_size=16, **size)))


def test_an_ordinary_model_has_no_split(model: LlamaForCausalLM) -> None:
    assert find_split(model) is None


def test_a_module_is_replaced_in_every_place() -> None:
    shared, other = nn.Linear(1, 1), nn.Linear(1, 1)
    holder = Holder(first=shared, inner=Holder(second=shared))
    replace_module(holder, shared, other)
    assert [part for part in holder.modules() if isinstance(part, nn.Linear)] == [other]
    assert holder.get_submodule("inner.second") is other


def test_replacing_a_module_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="Holder holds no such Linear"):
        replace_module(Holder(), nn.Linear(1, 1), nn.Linear(1, 1))
