from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
)

from lightning_vocab.grounding.pairs import Pair
from lightning_vocab.grounding.reference import (
    DescribedTokens,
    DescriptionEncoder,
    state_vectors,
    word_vectors,
)
from lightning_vocab.initializers import Keep, Normal
from lightning_vocab.rows import expand_model, export_model
from tests.conftest import make_model
from tests.expanded import make_expanded, with_slots

WORDS = ["<a>", "<b>", "<c>", "<d>"]  # ids 300 to 303
TEXTS = ["the cat sat", "a dog", "the log on the mat and the dog on the log"]


def test_each_token_is_linked_with_the_descriptions_of_its_pairs(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    pairs = [
        Pair(("<b>", "<a>"), "the cat"),
        Pair(("<b>", "<b>", "cat"), "the dog"),  # twice in one pair, and an old token
        Pair(("<c>",), "the cat"),
    ]
    found = DescribedTokens.of(pairs, make_expanded(tokenizer, WORDS))
    assert found.ids.tolist() == [301, 300, 302]
    assert found.descriptions == ("the cat", "the dog")
    means = found.mean(torch.tensor([[2.0, 0.0], [0.0, 4.0]]))
    assert means.tolist() == [[1.0, 2.0], [2.0, 0.0], [2.0, 0.0]]


def test_pairs_of_another_vocabulary_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="None of the tokens of 1 pairs is one of the 4 new"):
        DescribedTokens.of([Pair(("<e>",), "the cat")], make_expanded(tokenizer, WORDS))


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("layer", [None, 0, -1])
def test_states_are_the_standardised_means_of_the_base(
    layer: int | None, tied: bool, tokenizer: PreTrainedTokenizerFast
) -> None:
    expected = []
    base = make_model(tied=tied)
    for text in TEXTS:
        ids = torch.tensor([[0, *tokenizer.encode(text)]])
        states = base(ids, output_hidden_states=True).hidden_states[1 if layer is None else layer]
        expected.append(states[0, 1:].mean(dim=0))
    means = torch.stack(expected)
    means = (means - means.mean(dim=0)) / means.std(dim=0, correction=0)
    model, expanded = make_model(tied=tied), make_expanded(tokenizer, WORDS)
    expand_model(model, expanded, Normal())
    found = state_vectors(model, expanded, tokenizer, TEXTS, layer)
    torch.testing.assert_close(found, means.detach(), atol=1e-4, rtol=1e-4)


def test_new_rows_have_no_part_in_the_states(tokenizer: PreTrainedTokenizerFast) -> None:
    model: Any = make_model()
    expanded = make_expanded(tokenizer, WORDS)
    expand_model(model, expanded, Normal())
    before = state_vectors(model, expanded, tokenizer, [*TEXTS, "the <a>"])
    model.get_input_embeddings().rows.new.data.fill_(9.0)
    assert torch.equal(before, state_vectors(model, expanded, tokenizer, [*TEXTS, "the <a>"]))


@pytest.mark.parametrize("layout", ["appended", "padded", "slots"])
def test_on_a_grown_base_the_reference_is_that_of_the_base_it_grew_from(
    layout: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    new = {"appended": [300, 301, 302, 303], "padded": [300, 301, 302, 303], "slots": [300, 301]}
    if layout == "slots":
        tokenizer, base = with_slots(tokenizer), make_model(num_rows=303)
        expanded = make_expanded(tokenizer, [], slots={300: "<a>", 301: "<b>"})
    else:
        base = make_model(num_rows=304 if layout == "padded" else 300)
        rows = base.config.vocab_size
        expanded = make_expanded(tokenizer, WORDS, base_rows=rows)
    texts = [*TEXTS, "the <a> and<b> a <a>", "<b>", ""]
    expand_model(base, expanded, Normal())
    expected = state_vectors(base, expanded, tokenizer, texts)
    export_model(base, expanded, tmp_path / "grown")
    for noise in (0.0, 3.0):
        model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "grown")
        matrix = model.get_input_embeddings().weight.data
        matrix[new[layout]] += noise * torch.randn(len(new[layout]), matrix.shape[1])
        expand_model(model, expanded, Keep(), is_grown=True)
        found = state_vectors(model, expanded, expanded.tokenizer, texts)
        assert torch.equal(found, expected)


def test_pairs_have_the_fingerprint_of_their_ids_and_descriptions(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    expanded = make_expanded(tokenizer, WORDS)

    def fingerprint(*pairs: tuple[str, str]) -> str:
        return DescribedTokens.of([Pair((a,), b) for a, b in pairs], expanded).fingerprint

    first = fingerprint(("<a>", "the cat"), ("<b>", "a dog"))
    assert first == fingerprint(("<a>", "the cat"), ("<b>", "a dog"))
    others = {
        fingerprint(("<a>", "a dog"), ("<b>", "the cat")),
        fingerprint(("<a>", "the cat"), ("<c>", "a dog")),
        fingerprint(("<a>", "the cat"), ("<b>", "a dog"), ("<b>", "the cat")),
    }
    assert len(others | {first}) == 4


def test_a_long_description_is_read_in_parts_and_an_empty_one_is_unknown(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model, expanded = make_model(), make_expanded(tokenizer, WORDS)  # a context of 128 tokens
    expand_model(model, expanded, Normal())
    found = state_vectors(model, expanded, tokenizer, ["x" * 1000, "", "a dog"])
    assert found.isfinite().all()
    assert not found[1].any()
    assert found[0].any()


def test_an_ordinary_model_has_no_reference(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="got LlamaForCausalLM without new rows"):
        state_vectors(make_model(), make_expanded(tokenizer, WORDS), tokenizer, TEXTS)


def test_rare_words_weigh_more_and_case_does_not_matter() -> None:
    found = word_vectors(["Red red cat", "red dog", "a blue-grey cat", "..."])
    half, quarter = math.log(2), math.log(4)
    # Columns: red, cat, dog, a, blue, grey.
    expected = [
        [2 * half, half, 0, 0, 0, 0],
        [half, 0, quarter, 0, 0, 0],
        [0, half, 0, quarter, quarter, quarter],
        [0, 0, 0, 0, 0, 0],
    ]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_texts_without_a_word_are_unknown() -> None:
    assert word_vectors(["…", "!"]).tolist() == [[0.0], [0.0]]


def test_an_encoder_reads_descriptions(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=300,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
    )
    encoder = BertModel(config, add_pooling_layer=False).eval()
    encoder.save_pretrained(tmp_path)
    tokenizer.pad_token = "<|end|>"
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(tmp_path)
    found = DescriptionEncoder(str(tmp_path)).encode(TEXTS, torch.device("cpu"))
    for text, vector in zip(TEXTS, found, strict=True):
        states = encoder(torch.tensor([tokenizer.encode(text)])).last_hidden_state
        torch.testing.assert_close(vector, states[0].mean(dim=0).detach(), atol=1e-5, rtol=1e-5)
