from __future__ import annotations

import pytest

from lightning_vocab.base import load_base_model
from lightning_vocab.data.rows import Collate
from lightning_vocab.demo import BASE_FOLDER, resolve_base
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.rows import is_tied
from lightning_vocab.vocabulary import load_tokenizer


def test_the_bundled_model_is_small_tied_and_whole() -> None:
    weights = BASE_FOLDER / "model.safetensors"
    assert weights.stat().st_size <= 6_000_000
    model = load_base_model(resolve_base("demo"))
    assert 1_000_000 <= sum(p.numel() for p in model.parameters()) <= 3_000_000
    assert is_tied(model)
    assert len(load_tokenizer(resolve_base("demo"))) == 2048 == model.config.vocab_size


def test_the_bundled_model_knows_the_prose_that_it_was_trained_on() -> None:
    module = VocabExpansionModule(base="demo")
    module.configure_model()
    text = (
        "Return the number of items in the list. If the argument is not given, the default is "
        "used. This method is called when the object is about to be closed, and it raises an "
        "exception if the file has already been removed by another process."
    )
    ids = [0, *module.tokenizer(text).input_ids]
    row = {"input_ids": ids, "num_context": 1, "num_bytes": len(text.encode())}
    batch = Collate(pad_id=0)([row])  # type: ignore[list-item]  # lists do for arrays
    # Uniform over 2,048 tokens would be 0.3 tokens a byte times 11 bits: 3.3.
    assert float(module.bits_per_byte([batch]).compute()) < 2.2


@pytest.mark.parametrize("base", ["some/folder", "Qwen/Qwen2.5-0.5B"])
def test_other_names_of_a_base_are_left_alone(base: str) -> None:
    assert resolve_base(base) == base
