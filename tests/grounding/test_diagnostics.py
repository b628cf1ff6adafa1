from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from lightning_vocab.data.tokenise import frame_of
from lightning_vocab.functional.representation_similarity import representation_similarity
from lightning_vocab.grounding.diagnostics import ReferenceSpaces, measure_grounding, places_of
from lightning_vocab.grounding.judge import sampled
from lightning_vocab.grounding.pairs import Pair
from lightning_vocab.grounding.retrieval import retrieve
from lightning_vocab.grounding.rows import grounding_rows
from lightning_vocab.grounding.templates import Templates
from lightning_vocab.initializers import Normal
from lightning_vocab.loss import NextTokenLoss
from lightning_vocab.rows import expand_model
from lightning_vocab.watched_rows import watch
from tests.conftest import make_model
from tests.expanded import make_expanded

WORDS = ["<a>", "<b>", "<c>", "<d>", "<e>"]  # ids 300 to 304
PAIRS = [Pair((word,), f"the {name}") for word, name in zip(WORDS, "vwxyz", strict=True)]


def expanded_model(tokenizer: PreTrainedTokenizerFast, *, tied: bool) -> tuple[Any, Any]:
    model, expanded = make_model(tied=tied), make_expanded(tokenizer, WORDS)
    expand_model(model, expanded, Normal())
    rows = grounding_rows(
        PAIRS,
        Templates(),
        expanded.tokenizer,
        frame_of(expanded.tokenizer),
        direction="to_tokens",
        token_ids={token.surface: token.id for token in expanded.expansion.tokens},
    )
    return model, rows


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_rows_are_compared_with_the_reference_of_their_own_token(
    tied: bool, tokenizer: PreTrainedTokenizerFast
) -> None:
    model, rows = expanded_model(tokenizer, tied=tied)
    loss, watched = NextTokenLoss(model), watch(model, None, 300, seed=0)
    ids = torch.tensor([303, 300, 304, 301])  # in another order, and one token left out
    made = torch.randn(4, 6)
    split = [model.get_input_embeddings().rows, model.lm_head.rows]
    own = split[0].new.detach()[ids - 300]
    reference = ReferenceSpaces(ids, {"own": own, "made": made})
    found = measure_grounding(loss, watched, reference, rows)
    numbers = found.numbers
    assert numbers["rsa_own_pearson_input"] == pytest.approx(1.0)
    roles = ["input"] if tied else ["input", "output"]
    assert [part.role for part in found.spectra] == roles
    for part, role in zip(split, roles, strict=False):
        expected = representation_similarity(part.new.detach()[ids - 300], made)
        assert numbers[f"rsa_made_pearson_{role}"] == expected.pearson
        assert numbers[f"rsa_made_spearman_{role}"] == expected.spearman
        assert numbers[f"rsa_made_num_tokens_{role}"] == 4
        assert not math.isnan(numbers[f"effective_rank_new_{role}"])
    assert ("rsa_own_pearson_output" in numbers) == (not tied)
    assert numbers["retrieval_top1_share"] == retrieve(loss, rows).top1_share
    assert numbers["retrieval_mean_reciprocal_rank"] == retrieve(loss, rows).mean_reciprocal_rank


def test_a_reference_of_another_vocabulary_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    model, rows = expanded_model(tokenizer, tied=True)
    reference = ReferenceSpaces(torch.tensor([300, 7, 9]), {"made": torch.randn(3, 2)})
    with pytest.raises(ValueError, match="got 2 others of 3, such as 7"):
        measure_grounding(NextTokenLoss(model), watch(model, None, 300, 0), reference, rows)


def test_an_ordinary_model_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    _, rows = expanded_model(tokenizer, tied=True)
    reference = ReferenceSpaces(torch.tensor([300]), {})
    with pytest.raises(ValueError, match="Expected an expanded model"):
        measure_grounding(NextTokenLoss(make_model()), [], reference, rows)


def test_places_are_those_among_all_new_rows() -> None:
    new_ids = torch.tensor([5, 40, 41, 50])
    assert places_of(torch.tensor([50, 5, 41]), new_ids).tolist() == [3, 0, 2]


def test_a_sample_of_pairs_keeps_their_order_and_depends_on_the_seed() -> None:
    pairs = [Pair((f"<{number}>",), f"the cat {number}") for number in range(50)]
    found = sampled(pairs, 10, seed=1)
    places = [pairs.index(pair) for pair in found]
    assert len(set(places)) == 10
    assert places == sorted(places)
    assert sampled(pairs, 10, seed=1) == found
    assert sampled(pairs, 10, seed=2) != found
    assert sampled(pairs, 50, seed=1) == pairs


def test_a_description_in_the_sample_comes_with_all_its_pairs() -> None:
    pairs = [Pair((f"<{number}>",), f"the cat {number % 7}") for number in range(70)]
    found = sampled(pairs, 15, seed=1)
    texts = {pair.description for pair in found}
    assert len(texts) == 2  # the second brings the twenty pairs above 15
    assert found == [pair for pair in pairs if pair.description in texts]
    alike = [Pair((f"<{number}>",), "the cat") for number in range(10)]
    assert sampled(alike, 5, seed=1) == alike
