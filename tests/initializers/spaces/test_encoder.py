from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel, BertTokenizer

from lightning_vocab.initializers import SubwordMean
from lightning_vocab.initializers.focus import FOCUS
from lightning_vocab.initializers.spaces.encoder import EncoderSpace
from tests.initializers.contexts import make_context

WORDS = ("cats", "cat dog", "\ufffd", " cats")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random BERT of two layers that reads single letters."""
    place = tmp_path_factory.mktemp("encoder")
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{a}" for a in letters)]
    (place / "vocab.txt").write_text("\n".join(pieces))
    tokenizer = BertTokenizer(vocab=str(place / "vocab.txt"))
    tokenizer.save_pretrained(place)
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(place)
    return str(place)


@pytest.mark.parametrize("batch_size", [1, 64])
def test_vectors_are_the_mean_states_of_each_text_alone(folder: str, batch_size: int) -> None:
    context = make_context(torch.ones(300, 2), words=WORDS)
    found = EncoderSpace(folder, batch_size).vectors(context)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), BertModel.from_pretrained(folder)
    model.eval()
    for text, made in (("cats", found.new[0]), ("cat dog", found.new[1])):
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        torch.testing.assert_close(made, states.mean(0), atol=1e-5, rtol=1e-4)
    # Spaces around a text are dropped, so both spellings are one text.
    assert found.new[3].equal(found.new[0])


def test_what_is_no_whole_text_is_unknown(folder: str) -> None:
    context = make_context(torch.ones(300, 2), words=WORDS)
    found = EncoderSpace(folder).vectors(context)
    assert found.knows_new.tolist() == [True, True, False, True]
    texts = context.texts(context.base_ids.tolist())
    whole = [
        id > 0 and "\ufffd" not in text and bool(text.strip()) for id, text in enumerate(texts)
    ]
    assert found.knows_old.tolist() == whole
    method = FOCUS(EncoderSpace(folder), fallback=SubwordMean())
    method.rows(make_context(torch.randn(300, 2), words=WORDS))
    assert str(method.coverage) == (
        "FOCUS made 3 of 4 new tokens (75.0%); SubwordMean made the other 1: '\ufffd'."
    )


def test_random_numbers_are_as_before(folder: str) -> None:
    drawn = torch.get_rng_state()
    EncoderSpace(folder).vectors(make_context(torch.ones(300, 2)))
    assert torch.get_rng_state().equal(drawn)


def test_the_model_is_part_of_the_file_on_disk(folder: str, tmp_path: Path) -> None:
    context = make_context(torch.ones(300, 2))
    for _ in range(2):
        EncoderSpace(folder, cache_dir=str(tmp_path)).vectors(context)
    assert len(list(tmp_path.iterdir())) == 1
    assert EncoderSpace(folder).identity(context)["files"]


def test_a_tokenizer_without_padding_is_an_error(tied_folder: str) -> None:
    with pytest.raises(ValueError, match="has no padding token"):
        EncoderSpace(tied_folder).vectors(make_context(torch.ones(300, 2)))


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="got an empty string"):
        EncoderSpace("")
    with pytest.raises(ValueError, match="at least 1 text, got 0"):
        EncoderSpace("some", batch_size=0)
