from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
)

from lightning_vocab.loss import NextTokenLoss
from lightning_vocab.rows import base_view

SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}


def make_batch(num_rows: int, padded: bool = True) -> dict[str, Tensor]:
    input_ids = torch.randint(1, num_rows, (3, 9))
    labels, mask = input_ids.clone(), torch.ones_like(input_ids)
    if padded:
        labels[1, 6:], mask[1, 6:] = -100, 0
        labels[2, :4] = -100
    return {"input_ids": input_ids, "labels": labels, "attention_mask": mask}


def reference(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).double(), batch["labels"][:, 1:].flatten())


MODELS: dict[str, Callable[[], Any]] = {
    "gemma2 (cap)": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=2.0)
    ),
    "cohere (scale)": lambda: CohereForCausalLM(CohereConfig(**SMALL, logit_scale=0.25)),
    "granite (division)": lambda: GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=4.0)),
    "phi (head bias)": lambda: PhiForCausalLM(PhiConfig(**SMALL)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_streamed_loss_is_the_loss_of_the_models_own_logits(name: str) -> None:
    model = MODELS[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    loss, batch = NextTokenLoss(model, chunk_size=5), make_batch(50)
    assert loss.check(batch)
    assert loss.is_streamed
    torch.testing.assert_close(
        loss.mean_nats(batch).double(), reference(model, batch), rtol=1e-5, atol=1e-5
    )


def test_nats_are_zero_where_nothing_is_scored_and_sum_to_the_mean(model: LlamaForCausalLM) -> None:
    loss, batch = NextTokenLoss(model), make_batch(300)
    nats, scored = loss.nats(batch), batch["labels"][:, 1:] != -100
    assert (nats[~scored] == 0).all()
    torch.testing.assert_close(nats.sum() / scored.sum(), loss.mean_nats(batch))


class _Twisted(LlamaForCausalLM):
    """A model that does something between backbone and loss that no config key tells."""

    def forward(self, *args: object, **kwargs: object) -> object:
        output = super().forward(*args, **kwargs)
        output.logits = output.logits * 3.0
        return output


def test_a_model_whose_loss_differs_is_scored_by_its_own_with_a_warning() -> None:
    from tests.conftest import make_model

    model: Any = _Twisted(make_model().config)
    model.eval()
    loss, batch = NextTokenLoss(model), make_batch(300)
    with pytest.warns(UserWarning, match="differs from the loss of _Twisted"):
        assert loss.check(batch)
    assert not loss.is_streamed
    torch.testing.assert_close(
        loss.mean_nats(batch).double(), reference(model, batch), rtol=1e-5, atol=1e-5
    )
    assert loss.mean_nats(batch).requires_grad


def test_the_base_view_scores_with_the_old_rows_alone(model: LlamaForCausalLM) -> None:
    from lightning_vocab.initializers import SubwordMean
    from lightning_vocab.rows import expand_model
    from tests.conftest import make_tokenizer
    from tests.expanded import make_expanded

    batch = make_batch(300)
    before = NextTokenLoss(model).nats(batch)
    expand_model(model, make_expanded(make_tokenizer(), ["zebra", "quartz"]), SubwordMean())
    loss = NextTokenLoss(model)
    with base_view(model):
        assert torch.equal(loss.nats(batch), before)
    assert not torch.equal(loss.nats(batch), before)


def test_dropout_does_not_make_the_comparison_fail_nor_move_the_random_numbers() -> None:
    model = MODELS["gpt2"]()
    model.train()
    loss, batch = NextTokenLoss(model), make_batch(50)
    before = torch.get_rng_state()
    assert loss.check(batch)
    assert loss.is_streamed
    assert torch.equal(torch.get_rng_state(), before)
    assert all(part.training for part in model.modules())


def test_a_corner_without_a_scored_position_is_no_comparison(model: LlamaForCausalLM) -> None:
    batch = make_batch(300)
    batch["labels"][:] = -100
    assert not NextTokenLoss(model).check(batch)
