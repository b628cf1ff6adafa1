from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaForCausalLM
from typing_extensions import override

from lightning_vocab.initializers import SubwordMean
from lightning_vocab.rows.expand import expand_model
from lightning_vocab.rows.locate import find_split
from lightning_vocab.vocabulary.expansion import ExpandedTokenizer
from tests.conftest import make_model, make_tokenizer
from tests.expanded import make_expanded
from tests.rows.bases import WORDS


class Normed(nn.Embedding):
    """An embedding that does more than look up."""

    @override
    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.normalize(super().forward(input), dim=-1)


class Renamed(nn.Embedding):
    """An embedding that only has another name."""


class Adapted(nn.Linear):
    """A head that could do anything."""


@pytest.fixture
def expanded() -> ExpandedTokenizer:
    return make_expanded(make_tokenizer(), WORDS)


def expand(model: nn.Module, expanded: ExpandedTokenizer) -> None:
    expand_model(model, expanded, SubwordMean())


def test_a_model_is_expanded_only_once(
    model: LlamaForCausalLM, expanded: ExpandedTokenizer
) -> None:
    expand(model, expanded)
    with pytest.raises(ValueError, match="got one that was expanded already"):
        expand(model, expanded)


def test_a_model_without_weights_is_refused(expanded: ExpandedTokenizer) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(make_model().config)
    with pytest.raises(ValueError, match=r"parameters on the meta device \(model.embed_tokens"):
        expand(model, expanded)


@pytest.mark.parametrize(("rows", "base_rows"), [(299, 300), (304, 302), (300, 302), (290, 300)])
def test_a_base_of_other_rows_is_refused(rows: int, base_rows: int) -> None:
    expanded = make_expanded(make_tokenizer(), WORDS, base_rows=base_rows)
    expected = rf"Expected a base model of {base_rows} rows \(300 tokens\).* got one of {rows} rows"
    with pytest.raises(ValueError, match=expected):
        expand(make_model(rows), expanded)


def test_an_embedding_that_does_more_is_refused(expanded: ExpandedTokenizer) -> None:
    model = make_model(tied=False)
    model.model.embed_tokens = Normed(300, 32)
    with pytest.raises(TypeError, match=r"class Normed: it does more .* Supported are torch.nn"):
        expand(model, expanded)
    assert find_split(model) is None


def test_an_embedding_is_known_by_what_it_does(expanded: ExpandedTokenizer) -> None:
    model = make_model(tied=False)
    model.model.embed_tokens = Renamed(300, 32)
    expand(model, expanded)
    assert find_split(model) is not None


@pytest.mark.parametrize("option", ["max_norm", "scale_grad_by_freq", "sparse"])
def test_embedding_options_that_a_split_does_not_have_are_refused(
    option: str, expanded: ExpandedTokenizer
) -> None:
    model = make_model(tied=False)
    setattr(model.model.embed_tokens, option, 1.0 if option == "max_norm" else True)
    with pytest.raises(TypeError, match=f"uses {option}. Supported are"):
        expand(model, expanded)


def test_a_head_of_another_class_is_refused(expanded: ExpandedTokenizer) -> None:
    model = make_model(tied=False)
    model.lm_head = Adapted(32, 300, bias=False)
    with pytest.raises(TypeError, match=r"a head of class Adapted. Supported are"):
        expand(model, expanded)


def test_a_head_of_another_height_is_refused(expanded: ExpandedTokenizer) -> None:
    model = make_model(tied=False)
    model.lm_head = nn.Linear(32, 304, bias=False)
    with pytest.raises(ValueError, match="of one height, got 300 and 304 rows"):
        expand(model, expanded)


def test_quantized_rows_are_refused(expanded: ExpandedTokenizer) -> None:
    model = make_model(tied=False)
    weight = torch.zeros(300, 32, dtype=torch.int8)
    model.model.embed_tokens.weight = nn.Parameter(weight, requires_grad=False)
    with pytest.raises(TypeError, match=r"got torch.int8 and torch.float32: expand a base"):
        expand(model, expanded)


@pytest.mark.parametrize("rows", [300, 290])
def test_a_second_table_of_token_ids_is_refused_by_name(
    rows: int, expanded: ExpandedTokenizer
) -> None:
    model = make_model()
    model.config.vocab_size_per_layer_input = 290
    model.model.embed_tokens_per_layer = nn.Embedding(rows, 4)
    with pytest.raises(TypeError, match=r"one table: model.embed_tokens_per_layer \(besides"):
        expand(model, expanded)


def test_a_base_of_zeros_is_refused(expanded: ExpandedTokenizer) -> None:
    model = make_model()
    nn.init.zeros_(model.lm_head.weight)
    with pytest.raises(ValueError, match="not zero, found none among 300"):
        expand_model(model, expanded, SubwordMean())
    assert find_split(model) is None
