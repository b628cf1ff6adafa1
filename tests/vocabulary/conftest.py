"""Real tokenizers, each grown once a session, and small ones built in memory."""

from __future__ import annotations

import gc
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lightning_vocab.vocabulary import (
    ContinuedBPE,
    ExpandedTokenizer,
    load_tokenizer,
    save_expansion,
)
from lightning_vocab.vocabulary.fingerprint import backend

BY_DEFAULT = ("stories260K",)  # the smallest; byte-level ones are grown in the gate
CONTINUED = {
    "gpt2": "tokenizers/gpt2",
    "qwen2.5": "tokenizers/qwen2.5",
    "llama3": "tokenizers/llama3",
    "llama2": "tokenizers/llama2",
    "phi3-mini": "tokenizers/phi3-mini",
    "stories260K": "lm/stories260K",
}
NUM_NEW_TOKENS = 300
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@dataclass(frozen=True)
class Grown:
    """A real tokenizer before and after it grew."""

    name: str
    base: PreTrainedTokenizerBase
    expanded: ExpandedTokenizer

    @cached_property
    def old(self) -> Tokenizer:
        return backend(self.base)

    @cached_property
    def new(self) -> Tokenizer:
        return backend(self.expanded.tokenizer)


def texts_of(path: Path, limit: int) -> list[str]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line, _ in zip(lines, range(limit), strict=False)]


def small_corpus(assets: Path) -> list[str]:
    """A slice of Thai and Vietnamese."""
    return [
        *texts_of(assets / "text/th_wisesight.jsonl", 1200),
        *(text[:4000] for text in texts_of(assets / "text/vi_wikipedia.jsonl", 30)),
    ]


def real_tokenizer(name: str) -> pytest.ParameterSet:
    marks = [pytest.mark.assets] if name in BY_DEFAULT else [pytest.mark.assets, pytest.mark.slow]
    return pytest.param(name, marks=marks)


@pytest.fixture(scope="session", params=[real_tokenizer(name) for name in CONTINUED])
def grown(request: pytest.FixtureRequest, assets: Path) -> Grown:
    base = load_tokenizer(assets / CONTINUED[request.param])
    base.chat_template = CHAT_TEMPLATE
    expanded = ContinuedBPE(NUM_NEW_TOKENS).extend(base, small_corpus(assets))
    # The tokenizers stay to the end; the collector need not walk through their merges each time.
    gc.freeze()
    return Grown(request.param, base, expanded)


@pytest.fixture(scope="session")
def saved(grown: Grown, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_expansion(grown.expanded, tmp_path_factory.mktemp(grown.name) / "expansion")


def make_fallback_tokenizer() -> PreTrainedTokenizerFast:
    """A SentencePiece-type BPE with byte fallback: Latin letters, digits, a few merges."""
    merges = [("▁", "a"), ("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("▁", "▁"), ("i", "n")]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += ["▁", *"abcdefghijklmnopqrstuvwxyz0123456789.,!<>xABCDEF"]
    tokens += [left + right for left, right in merges]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture
def fallback_tokenizer() -> PreTrainedTokenizerFast:
    return make_fallback_tokenizer()
