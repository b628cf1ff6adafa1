"""Pico bases of several architectures, and the places where new rows can lie."""

from __future__ import annotations

from typing import Any, Literal

import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
)

from lightning_vocab.vocabulary.expansion import ExpandedTokenizer
from tests.conftest import make_model, make_tokenizer
from tests.expanded import make_expanded, with_slots

Kind = Literal["llama-tied", "llama-untied", "phi-bias", "gemma-scaled", "gpt2-tied"]
KINDS: tuple[Kind, ...] = ("llama-tied", "llama-untied", "phi-bias", "gemma-scaled", "gpt2-tied")
Layout = Literal["appended", "padded", "slot", "multiple"]
LAYOUTS: tuple[Layout, ...] = ("appended", "padded", "slot", "multiple")
TEXT = "the cat sat on the log and learns"
WORDS = ("catdog", "<|tool|>", "textlog")


def make_base(
    kind: Kind, num_rows: int = 300, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    if kind in ("llama-tied", "llama-untied"):
        return make_model(num_rows, tied=kind == "llama-tied", dtype=dtype)
    shape: dict[str, Any] = {
        "vocab_size": num_rows,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": None,
    }
    state = torch.get_rng_state()
    torch.manual_seed(13)
    model: PreTrainedModel
    if kind == "gpt2-tied":
        model = GPT2LMHeadModel(GPT2Config(**shape, n_embd=16, n_layer=1, n_head=2, n_positions=64))
    elif kind == "phi-bias":
        size: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
        model = PhiForCausalLM(PhiConfig(**shape, **size, num_attention_heads=2))
        assert model.lm_head.bias is not None
        torch.nn.init.normal_(model.lm_head.bias)
    else:
        size = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
        heads: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
        model = Gemma3ForCausalLM(Gemma3TextConfig(**shape, **size, **heads))
    torch.set_rng_state(state)
    model.to(dtype=dtype).eval()  # type: ignore[call-arg]  # the decorator hides torch's signature
    return model


def make_case(layout: Layout) -> tuple[int, ExpandedTokenizer, int | None]:
    """Rows of the base, its grown tokenizer, and the multiple to pad to."""
    tokenizer = make_tokenizer()
    if layout == "padded":  # two of three new ids fall on padded rows
        return 302, make_expanded(tokenizer, WORDS, base_rows=302), None
    if layout == "slot":  # ids 300 and 301 are slots, 302 is a token of the base behind them
        base = with_slots(tokenizer)
        return 303, make_expanded(base, WORDS[:1], slots={301: "textlog"}), None
    multiple = 16 if layout == "multiple" else None
    return 300, make_expanded(tokenizer, WORDS), multiple


def ids_of(expanded: ExpandedTokenizer, text: str = TEXT) -> torch.Tensor:
    return torch.tensor([expanded.tokenizer.encode(text)])
