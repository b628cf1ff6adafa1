"""Models and tokenizers small enough to be built in memory, and the folder of real ones."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:  # the process that hands tests to the workers reads this file and needs neither
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

# The default run is quick, the gate thorough: a property test names `max_examples` only where an
# example costs next to nothing.
settings.register_profile("quick", max_examples=10, deadline=None)
settings.register_profile("thorough", max_examples=30, deadline=None)
settings.load_profile("quick")

ASSETS = Path(
    os.environ.get(
        "LIGHTNING_VOCAB_ASSETS", Path(__file__).resolve().parents[1].parent / "shared" / "assets"
    )
)
TEXTS = (
    "the cat sat on the mat and the dog sat on the log",
    "a model of language reads the text and learns the tokens of the text",
    "def add(left, right):\n    return left + right\n",
)
NEW_TEXTS = (
    "zebra quartz jungle zebra quartz",
    "quartz vivid jungle zebra vivid",
    "vivid zebra jungle quartz vivid jungle",
)


def pytest_collectstart() -> None:
    """The models are tiny and two workers share the cores: threads would wait for each other."""
    import torch

    torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """What is imported stays: collections of garbage need not look through all of it each time."""
    gc.freeze()


def case(*values: object, quick: bool, id: str | None = None) -> pytest.ParameterSet:
    """Arguments of a test that run by default only if they are `quick`, else as `slow`."""
    return pytest.param(*values, marks=() if quick else pytest.mark.slow, id=id)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the assets where they are missing; where CI=true the test runs and fails."""
    if ASSETS.is_dir() or os.environ.get("CI") == "true":
        return
    skip = pytest.mark.skip(reason=f"no assets at {ASSETS} (set LIGHTNING_VOCAB_ASSETS)")
    for item in items:
        if "assets" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def assets() -> Path:
    return ASSETS


@pytest.fixture(autouse=True)
def _seeded() -> None:
    import torch

    torch.default_generator.manual_seed(7)  # torch.manual_seed formats a stack for each accelerator


def make_tokenizer(vocab_size: int = 300) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of the GPT-2 kind; `<|end|>` is its bos and its eos."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|end|>", eos_token="<|end|>"
    )


def make_model(
    num_rows: int = 300, *, tied: bool = True, dtype: torch.dtype | None = None
) -> LlamaForCausalLM:
    """A pico Llama: width 32, two layers, random weights that depend on the seed alone."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=num_rows,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=None,
    )
    generator_state = torch.get_rng_state()
    torch.manual_seed(11)
    model = LlamaForCausalLM(config)
    dtype = dtype or torch.float32
    model.to(dtype=dtype).eval()  # type: ignore[call-arg]  # the decorator hides torch's signature
    torch.set_rng_state(generator_state)
    return model


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def model(request: pytest.FixtureRequest) -> LlamaForCausalLM:
    return make_model(tied=request.param)


@pytest.fixture(scope="session", params=[True, False], ids=["tied", "untied"])
def base_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The pico model and its tokenizer as a Hugging Face folder; read-only."""
    return _write_base(tmp_path_factory.mktemp("base"), tied=request.param)


@pytest.fixture(scope="session")
def tied_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`base_folder` for tests that a tie says nothing about."""
    return _write_base(tmp_path_factory.mktemp("tied"), tied=True)


def _write_base(folder: Path, *, tied: bool) -> str:
    make_model(tied=tied).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def expansion_folder(base_folder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The pico tokenizer grown by 12 merges, as an expansion folder; read-only."""
    from lightning_vocab.vocabulary import ContinuedBPE, load_tokenizer, save_expansion

    expanded = ContinuedBPE(num_new_tokens=12).extend(
        load_tokenizer(base_folder), NEW_TEXTS * 4, base_rows=300
    )
    return str(save_expansion(expanded, tmp_path_factory.mktemp("expansions") / "expansion"))
