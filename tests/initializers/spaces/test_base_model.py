from __future__ import annotations

import functools
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Literal, cast

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from lightning_vocab.initializers import RowContext
from lightning_vocab.initializers.focus import FOCUS
from lightning_vocab.initializers.spaces.base_model import BaseModelSpace
from lightning_vocab.initializers.spaces.tokens import read_texts
from lightning_vocab.rows import expand_model
from lightning_vocab.rows.split import SplitEmbedding, SplitHead
from lightning_vocab.vocabulary import ContinuedBPE, load_tokenizer
from tests.conftest import make_model, make_tokenizer
from tests.expanded import make_expanded
from tests.initializers.contexts import WORDS, make_context

TEXT = ("the catdog sat on the mat", "cats and the catdog", "a model of language", "cats " * 9)


def base_context(model: LlamaForCausalLM | None = None) -> tuple[RowContext, LlamaForCausalLM]:
    model = make_model() if model is None else model
    context = make_context(model.model.embed_tokens.weight.detach())
    return replace(context, model=model), model


@torch.no_grad()
def states(model: LlamaForCausalLM, ids: list[int], layer: int) -> Tensor:
    """States behind the start token 0."""
    made = model(torch.tensor([[0, *ids]]), output_hidden_states=True)
    found: Tensor = made.hidden_states[layer][0, 1:]
    return found.double()


@functools.cache
@torch.no_grad()
def states_alone() -> tuple[Tensor, ...]:
    """States of each old token alone behind the start token, a tensor for each layer."""
    model = make_model()
    one_by_one = [
        model(torch.tensor([[0, id]]), output_hidden_states=True).hidden_states for id in range(300)
    ]
    return tuple(
        torch.stack([h[0, 1] for h in layer]).double() for layer in zip(*one_by_one, strict=True)
    )


def standardised(new: Tensor, old: Tensor) -> tuple[Tensor, Tensor]:
    mean, deviation = old[1:].mean(0), old[1:].std(0, correction=0)  # id 0 is special
    return (new - mean) / deviation, (old - mean) / deviation


@pytest.mark.parametrize(
    ("layer", "pool", "index"), [(None, "last", 1), (0, "mean", 0), (-1, "last", 2)]
)
def test_tokens_alone_have_the_states_of_the_model_one_by_one(
    layer: int | None, pool: Literal["last", "mean"], index: int
) -> None:
    context, model = base_context()
    rows = [states(model, list(token.pieces), index) for token in context.expansion.tokens]
    new = torch.stack([row[-1] if pool == "last" else row.mean(0) for row in rows])
    old = states_alone()[index]
    found = BaseModelSpace(layer, pool, batch_tokens=7).vectors(context)
    for made, expected in zip((found.new, found.old), standardised(new, old), strict=True):
        torch.testing.assert_close(made.double(), expected, atol=1e-3, rtol=1e-3)
    assert found.knows_new.all()
    assert (~found.knows_old).nonzero().tolist() == [[0]]


def test_a_token_of_one_piece_has_the_vector_of_that_piece() -> None:
    context, _ = base_context()
    token = replace(context.expansion.tokens[0], pieces=(70,))
    tokens = (token, *context.expansion.tokens[1:])
    context = replace(context, expansion=replace(context.expansion, tokens=tokens))
    found = BaseModelSpace().vectors(context)
    torch.testing.assert_close(found.new[0], found.old[70])


@pytest.mark.parametrize("size", [4, 100])
def test_tokens_in_text_have_the_mean_of_their_states(size: int, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(TEXT))
    context, model = base_context()
    pieces = {token.id: token.pieces for token in context.expansion.tokens}
    found: dict[int, list[Tensor]] = {}
    for text in TEXT:
        ids: list[int] = []
        ends: dict[int, int] = {}
        for id in context.tokenizer.encode(text, add_special_tokens=False):
            ids += pieces.get(id, (id,))
            ends[len(ids) - 1] = id
        for first in range(0, len(ids), size):
            part = states(model, ids[first : first + size], 1)
            for place, state in enumerate(part, start=first):
                if place in ends:
                    found.setdefault(ends[place], []).append(state)
    means = {id: torch.stack(each).mean(0) for id, each in found.items()}
    made = BaseModelSpace(snippets=str(path), context_tokens=size, batch_tokens=9).vectors(context)
    known = sorted(set(means) - set(pieces))
    old = torch.stack([means[id] for id in known])
    mean, deviation = old.mean(0), old.std(0, correction=0)
    assert made.knows_old.nonzero().flatten().tolist() == known
    assert made.knows_new.tolist() == [token.id in means for token in context.expansion.tokens]
    expected = (old - mean) / deviation
    torch.testing.assert_close(made.old[known].double(), expected, atol=1e-3, rtol=1e-3)
    catdog = (means[context.expansion.tokens[0].id] - mean) / deviation
    torch.testing.assert_close(made.new[0].double(), catdog, atol=1e-3, rtol=1e-3)


def test_modes_and_random_numbers_are_as_before() -> None:
    context, model = base_context()
    model.train()
    model.model.layers[0].eval()
    before, drawn = [part.training for part in model.modules()], torch.get_rng_state()
    BaseModelSpace().vectors(context)
    assert [part.training for part in model.modules()] == before
    assert torch.get_rng_state().equal(drawn)
    assert all(weight.grad is None for weight in model.parameters())


def test_new_weights_are_another_file_on_disk(tmp_path: Path) -> None:
    context, model = base_context()
    space = BaseModelSpace(cache_dir=str(tmp_path))
    first = space.vectors(context)
    assert space.vectors(context).old.equal(first.old)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight += 1
    assert not space.vectors(context).old.equal(first.old)
    assert len(list(tmp_path.iterdir())) == 2


def test_rows_without_a_model_are_an_error() -> None:
    with pytest.raises(ValueError, match="got rows without one: let expand_model"):
        BaseModelSpace().vectors(make_context(torch.ones(300, 2)))


def test_a_layer_that_the_model_lacks_is_an_error() -> None:
    for layer in (3, -4):
        with pytest.raises(ValueError, match=f"hidden states -3 to 2: there is no layer {layer}"):
            BaseModelSpace(layer).vectors(base_context()[0])


def test_text_beyond_what_the_model_reads_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("the cat")
    space = BaseModelSpace(snippets=str(path), context_tokens=128)
    with pytest.raises(ValueError, match="at most 128 tokens, the start token included"):
        space.vectors(base_context()[0])


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="pool must be last or mean: got 'first'"):
        BaseModelSpace(pool="first")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match="at least 1, got 256 and 0"):
        BaseModelSpace(batch_tokens=0)
    with pytest.raises(FileNotFoundError, match=r"gone\.txt"):
        BaseModelSpace(snippets="gone.txt")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_expands_with_it_and_its_old_rows_do_not_move(
    tied: bool, dtype: torch.dtype
) -> None:
    model = make_model(tied=tied, dtype=dtype)
    before = model.model.embed_tokens.weight.detach().clone()
    expand_model(model, make_expanded(make_tokenizer(), WORDS, base_rows=300), FOCUS())
    embedding = cast(SplitEmbedding, model.model.embed_tokens)
    head = cast(SplitHead, model.lm_head)
    assert embedding.rows.old.equal(before)
    assert (head.rows is embedding.rows) == tied


@pytest.mark.assets
@pytest.mark.slow
def test_a_real_base_knows_every_thai_token(assets: Path) -> None:
    folder = assets / "lm" / "english-4M"
    texts = islice(read_texts([str(assets / "text" / "th_wisesight.jsonl")]), 300)
    tokenizer = load_tokenizer(str(folder))
    model = AutoModelForCausalLM.from_pretrained(folder)
    expanded = ContinuedBPE(num_new_tokens=50).extend(
        tokenizer, texts, base_rows=model.config.vocab_size
    )
    method = FOCUS(fallback=None)
    expand_model(model, expanded, method)
    assert method.known is not None
    assert method.known.startswith("BaseModelSpace knows 50 of 50 new tokens")
