from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from typing_extensions import override

from lightning_vocab.initializers import Initializer, Mean, Normal, RowContext, SubwordMean
from lightning_vocab.rows.expand import expand_model
from lightning_vocab.rows.locate import find_split
from lightning_vocab.rows.split import SplitEmbedding, SplitHead, SplitRows, base_view
from tests.conftest import make_model, make_tokenizer
from tests.expanded import make_expanded
from tests.rows.bases import KINDS, LAYOUTS, WORDS, Kind, Layout, ids_of, make_base, make_case

INITIALIZERS = [SubwordMean(), Mean(), Normal()]


class Given(Initializer):
    """Gives what it was given."""

    def __init__(self, inputs: Tensor, outputs: Tensor | None = None) -> None:
        self.given = inputs, outputs

    @override
    def rows(self, context: RowContext) -> tuple[Tensor, Tensor | None]:
        return self.given


def rows_of(model: torch.nn.Module) -> tuple[SplitRows, SplitRows]:
    split = find_split(model)
    assert split is not None
    return split[0].rows, split[1].rows


@torch.no_grad()
def logits_of(model: Any, ids: Tensor) -> Tensor:
    logits: Tensor = model(ids).logits
    return logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_old_logits_stay_bit_for_bit(kind: Kind, layout: Layout, dtype: torch.dtype) -> None:
    num_rows, expanded, multiple = make_case(layout)
    model, ids = make_base(kind, num_rows, dtype), ids_of(expanded)
    before = logits_of(model, ids)
    expand_model(model, expanded, SubwordMean(), pad_to_multiple_of=multiple)
    after = logits_of(model, ids)
    kept = [id for id in range(num_rows) if id not in expanded.expansion.new_ids]
    assert torch.equal(after[..., kept], before[..., kept])
    with base_view(model):
        assert torch.equal(logits_of(model, ids), before)


@pytest.mark.parametrize("initializer", INITIALIZERS, ids=lambda given: type(given).__name__)
def test_old_logits_do_not_depend_on_the_initializer(
    model: LlamaForCausalLM, initializer: Initializer
) -> None:
    _, expanded, _ = make_case("appended")
    before = logits_of(model, ids_of(expanded))
    expand_model(model, expanded, initializer)
    assert torch.equal(logits_of(model, ids_of(expanded))[..., :300], before)


@pytest.mark.parametrize("kind", KINDS)
def test_old_rows_are_the_parameters_of_the_base(kind: Kind) -> None:
    _, expanded, _ = make_case("appended")
    model = make_base(kind)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert isinstance(head, torch.nn.Linear)
    expand_model(model, expanded, Normal())
    input_rows, output_rows = rows_of(model)
    assert input_rows.old is embedding.weight
    assert output_rows.old is head.weight
    assert output_rows.old_bias is head.bias
    assert (input_rows is output_rows) == (embedding.weight is head.weight)


@pytest.mark.parametrize(
    ("layout", "num_rows"), [("appended", 303), ("padded", 303), ("slot", 304), ("multiple", 304)]
)
def test_the_model_gets_as_many_rows_as_it_needs(layout: Layout, num_rows: int) -> None:
    base_rows, expanded, multiple = make_case(layout)
    model = make_base("llama-untied", base_rows)
    expand_model(model, expanded, Mean(), pad_to_multiple_of=multiple)
    assert [rows.num_rows for rows in rows_of(model)] == [num_rows, num_rows]
    assert model.config.vocab_size == model.vocab_size == num_rows
    assert logits_of(model, ids_of(expanded)).shape[-1] == num_rows


def test_rows_that_are_padded_far_beyond_the_tokens_stay() -> None:
    expanded = make_expanded(make_tokenizer(), WORDS, base_rows=320)
    model = make_base("llama-tied", 320)
    expand_model(model, expanded, SubwordMean(), pad_to_multiple_of=8)
    rows = rows_of(model)[0]
    assert rows.num_rows == 320
    assert rows.replaced_ids.tolist() == [300, 301, 302]
    assert len(rows.padding) == 0


def test_a_manifest_of_the_tokenizer_alone_takes_the_rows_of_the_model() -> None:
    model, expanded = make_base("llama-tied", 320), make_expanded(make_tokenizer(), WORDS)
    assert expanded.expansion.base_rows == 300
    expand_model(model, expanded, SubwordMean())
    assert rows_of(model)[0].num_rows == 320


def test_new_rows_are_what_the_initializer_gave() -> None:
    expanded = make_expanded(make_tokenizer(), WORDS)
    model, inputs, outputs = make_model(tied=False), torch.randn(3, 32), torch.randn(3, 32)
    expand_model(model, expanded, Given(inputs, outputs))
    input_rows, output_rows = rows_of(model)
    assert torch.equal(input_rows.new, inputs)
    assert torch.equal(output_rows.new, outputs)


def test_beside_rows_of_half_precision_new_rows_are_float32() -> None:
    model = make_model(dtype=torch.bfloat16)
    expand_model(model, make_expanded(make_tokenizer(), WORDS), SubwordMean(), pad_to_multiple_of=8)
    rows = rows_of(model)[0]
    assert (rows.new.dtype, rows.padding.dtype) == (torch.float32, torch.bfloat16)
    assert rows.new.requires_grad


def test_padding_rows_are_the_mean_of_rows_with_a_token() -> None:
    expanded = make_expanded(make_tokenizer(), WORDS, base_rows=302)
    model = make_base("phi-bias", 302)
    state = model.state_dict()
    means = [state[f"{name}.weight"][:300].mean(0) for name in ("model.embed_tokens", "lm_head")]
    bias = state["lm_head.bias"][:300].mean()
    expand_model(model, expanded, Normal(), pad_to_multiple_of=16)
    for rows, mean in zip(rows_of(model), means, strict=True):
        assert rows.padding.shape == (1, 16)
        assert torch.allclose(rows.padding[0], mean, atol=1e-7)
    padding_bias = rows_of(model)[1].padding_bias
    assert padding_bias is not None
    assert torch.allclose(padding_bias, bias, atol=1e-6)


def test_padding_rows_win_less_than_one_share_of_the_probability() -> None:
    tokenizer = make_tokenizer()
    model = make_base("phi-bias")
    with torch.no_grad():  # logits far below zero, where rows of zeros would win everything
        model.lm_head.bias.sub_(30)
        model.lm_head.weight.mul_(20)
    expand_model(model, make_expanded(tokenizer, WORDS), Normal(), pad_to_multiple_of=64)
    columns = rows_of(model)[1]
    logits = logits_of(model, torch.arange(300).view(10, 30))
    base, padding = logits[..., :300], logits[..., 303:]
    assert padding.shape[-1] == columns.padding.shape[0] == 17
    share = padding.exp() / (base.exp().sum(-1, keepdim=True) + padding.exp())
    assert share.max() <= 1 / 301 + 1e-6


def test_the_same_generator_gives_the_same_rows() -> None:
    expanded = make_expanded(make_tokenizer(), WORDS)
    made = []
    for seed in (3, 3, 4):
        model = make_model()
        expand_model(model, expanded, Normal(), generator=torch.Generator().manual_seed(seed))
        made.append(rows_of(model)[0].new.detach())
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_without_a_generator_the_rows_do_not_depend_on_the_global_seed() -> None:
    expanded = make_expanded(make_tokenizer(), WORDS)
    first, second = make_model(), make_model()
    torch.manual_seed(1)
    expand_model(first, expanded, Normal())
    torch.manual_seed(2)
    expand_model(second, expanded, Normal())
    assert torch.equal(rows_of(first)[0].new, rows_of(second)[0].new)


def test_the_split_embedding_is_the_model_s_embedding(model: LlamaForCausalLM) -> None:
    expand_model(model, make_expanded(make_tokenizer(), WORDS), SubwordMean())
    assert isinstance(model.get_input_embeddings(), SplitEmbedding)
    assert isinstance(model.get_output_embeddings(), SplitHead)


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_comes_back_strictly(kind: Kind) -> None:
    num_rows, expanded, _ = make_case("slot")
    model, other = make_base(kind, num_rows), make_base(kind, num_rows)
    expand_model(model, expanded, Normal())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.25)
    expand_model(other, expanded, Mean())
    other.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(logits_of(other, ids_of(expanded)), logits_of(model, ids_of(expanded)))


def test_the_expanded_model_generates(model: LlamaForCausalLM) -> None:
    expanded = make_expanded(make_tokenizer(), WORDS)
    expand_model(model, expanded, SubwordMean())
    ids = ids_of(expanded, "the catdog sat")
    live: Any = model  # generate asks for a protocol that LlamaForCausalLM is not typed as
    produced = live.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert isinstance(produced, Tensor)
    step = ids  # greedy, by hand and without a cache
    for _ in range(4):
        step = torch.cat([step, logits_of(model, step)[:, -1:].argmax(-1)], dim=1)
        if int(step[0, -1]) == 0:
            break
    assert torch.equal(produced, step)


def test_special_ids_of_the_base_stay() -> None:
    model = make_model()
    config, generation = copy.deepcopy(model.config), copy.deepcopy(model.generation_config)
    expand_model(model, make_expanded(make_tokenizer(), WORDS), SubwordMean())
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert getattr(model.config, name) == getattr(config, name)
        assert getattr(model.generation_config, name) == getattr(generation, name)


def test_new_special_tokens_are_followed() -> None:
    expanded = make_expanded(make_tokenizer(), ["<|im_end|>", "<|pad|>"])
    expanded.tokenizer.eos_token = "<|im_end|>"
    expanded.tokenizer.pad_token = "<|pad|>"
    model = make_model()
    expand_model(model, expanded, SubwordMean())
    assert (model.config.bos_token_id, model.config.eos_token_id) == (0, 300)
    assert model.config.pad_token_id == model.generation_config.pad_token_id == 301
    assert model.generation_config.eos_token_id == [0, 300]  # the base's end still ends a text


def test_the_head_bias_of_new_rows_comes_from_the_initializer() -> None:
    expanded = make_expanded(make_tokenizer(), WORDS)
    for initializer in INITIALIZERS:
        model = make_base("phi-bias")
        bias = model.lm_head.bias.detach().clone()
        expand_model(model, expanded, initializer)
        new = rows_of(model)[1].new_bias
        assert new is not None
        if isinstance(initializer, SubwordMean):
            # "catdog" is cut into "cat" and "dog": equal weights.
            pieces = list(expanded.expansion.tokens[0].pieces)
            assert torch.allclose(new[0], bias[pieces].mean())
        else:
            assert torch.allclose(new, bias.mean().expand(3), atol=1e-6)
    assert rows_of(model)[0].new_bias is None


@pytest.mark.parametrize(
    ("initializer", "message"),
    [
        (Given(torch.zeros(2, 32)), r"input rows of Given of shape \(3, 32\), got \(2, 32\)"),
        (Given(torch.full((3, 32), torch.nan)), "finite input rows of Given, got 96 values"),
        (Given(torch.zeros(3, 32), torch.zeros(3, 32)), "the model is tied, got Tensor"),
    ],
)
def test_unusable_rows_are_refused_and_the_model_stays(
    initializer: Initializer, message: str
) -> None:
    model, expanded = make_model(), make_expanded(make_tokenizer(), WORDS)
    with pytest.raises(ValueError, match=message):
        expand_model(model, expanded, initializer)
    assert find_split(model) is None
    assert model.config.vocab_size == 300


def test_missing_output_rows_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="the model is untied, got NoneType"):
        expand_model(
            make_model(tied=False), make_expanded(tokenizer, WORDS), Given(torch.zeros(3, 32))
        )


def test_a_multiple_below_one_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="pad_to_multiple_of must be 1 or more: got 0"):
        expand_model(
            make_model(), make_expanded(tokenizer, WORDS), SubwordMean(), pad_to_multiple_of=0
        )
