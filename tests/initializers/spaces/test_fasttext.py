from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gensim.models import FastText
from gensim.models.fasttext import save_facebook_model

from lightning_vocab.initializers import SubwordMean
from lightning_vocab.initializers.focus import FOCUS
from lightning_vocab.initializers.spaces.fasttext import FastTextSpace
from tests.initializers.contexts import make_context

DOCUMENTS = ("the catdog sat on the mat", "cats and the catdog sat") * 8
SMALL = {"width": 8, "min_count": 2, "buckets": 50}


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(DOCUMENTS))
    return str(path)


def small_space(corpus: str, **changed: Any) -> FastTextSpace:
    return FastTextSpace(corpus, **{**SMALL, **changed})


def test_the_library_is_trained_on_the_tokens_of_the_text(corpus: str) -> None:
    context = make_context(torch.ones(300, 2))
    sentences = [
        context.tokenizer.convert_ids_to_tokens(context.tokenizer.encode(text))
        for text in DOCUMENTS
    ]
    model = FastText(
        sentences,
        vector_size=8,
        window=5,
        min_count=2,
        sg=0,
        negative=10,
        epochs=3,
        alpha=0.05,
        sample=1e-4,
        min_n=3,
        max_n=6,
        bucket=50,
        workers=1,
        seed=0,
    )
    found = small_space(corpus).vectors(context)
    assert found.knows_new.tolist() == [True, True, False]  # <|tool|> does not occur
    np.testing.assert_array_equal(found.new[0].numpy(), model.wv["catdog"])
    known = {token for tokens in sentences for token in tokens} - {"catdog", "cats"}
    ids = {context.tokenizer.convert_tokens_to_ids(token) for token in known}
    assert set(found.knows_old.nonzero().flatten().tolist()) == ids
    at = context.base_ids.tolist().index(context.tokenizer.convert_tokens_to_ids("Ġthe"))
    np.testing.assert_array_equal(found.old[at].numpy(), model.wv["Ġthe"])


def test_the_same_seed_gives_the_same_vectors(corpus: str) -> None:
    context = make_context(torch.ones(300, 2))
    first, again = (small_space(corpus).vectors(context) for _ in range(2))
    assert first.new.equal(again.new)
    assert first.old.equal(again.old)
    assert not small_space(corpus, seed=1).vectors(context).new.equal(first.new)


def test_a_rare_token_is_unknown_and_a_rare_corpus_an_error(corpus: str) -> None:
    context = make_context(torch.ones(300, 2))
    found = small_space(corpus, min_count=9).vectors(context)
    assert found.knows_new.tolist() == [True, False, False]  # 16 and 8 occurrences
    with pytest.raises(ValueError, match=r"No token occurs 1000 times .* 16 times: give more text"):
        small_space(corpus, min_count=1000).vectors(context)


def test_without_buckets_there_are_no_n_grams(corpus: str) -> None:
    context = make_context(torch.ones(300, 2))
    assert small_space(corpus, buckets=0).vectors(context).knows_new.tolist() == [True, True, False]


def test_vectors_on_disk_follow_the_arguments(corpus: str, tmp_path: Path) -> None:
    context = make_context(torch.ones(300, 2))
    for changed in ({}, {}, {"seed": 1}, {"epochs": 1}):
        small_space(corpus, cache_dir=str(tmp_path / "cache"), **changed).vectors(context)
    assert len(list((tmp_path / "cache").iterdir())) == 3


@pytest.mark.parametrize("names", ["surface", "token"])
def test_a_file_knows_the_tokens_that_are_words_of_it(names: Any, tmp_path: Path) -> None:
    path = tmp_path / "some.vec"
    path.write_text("4 2\ncatdog 1 2\nthe 3 4\nĠthe 5 6\nunused 7 8\n", encoding="utf-8")
    context = make_context(torch.ones(300, 2))
    space = FastTextSpace(vectors=str(path), names=names)
    found = space.vectors(context)
    assert found.knows_new.tolist() == [True, False, False]
    assert found.new[0].tolist() == [1, 2]
    of_the = found.old[context.tokenizer.convert_tokens_to_ids("Ġthe")].tolist()
    assert of_the == ([3, 4] if names == "surface" else [5, 6])
    method = FOCUS(space, fallback=SubwordMean())
    method.rows(make_context(torch.randn(300, 2)))
    assert str(method.coverage).startswith("FOCUS made 1 of 3 new tokens (33.3%); SubwordMean made")


def test_a_model_of_fasttext_knows_words_by_their_n_grams(tmp_path: Path) -> None:
    model = FastText([text.split() for text in DOCUMENTS], vector_size=4, min_count=1, bucket=40)
    path = tmp_path / "some.bin"
    save_facebook_model(model, str(path))
    context = make_context(torch.ones(300, 2))
    found = FastTextSpace(vectors=str(path)).vectors(context)
    assert found.knows_new.all()
    np.testing.assert_allclose(found.new[0].numpy(), model.wv["catdog"], rtol=1e-5)
    np.testing.assert_allclose(found.new[2].numpy(), model.wv["<|tool|>"], rtol=1e-5)
    content = path.read_bytes()
    for size in (10, 200, len(content) // 2):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match="cut short or no model of fastText"):
            FastTextSpace(vectors=str(path)).vectors(context)


def test_a_missing_library_names_the_extra(corpus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there = builtins.__import__

    def without_gensim(name: str, *args: Any) -> Any:
        if name.startswith("gensim"):
            raise ImportError(name)
        return there(name, *args)

    monkeypatch.setattr(builtins, "__import__", without_gensim)
    with pytest.raises(ImportError, match=r"pip install 'lightning-vocab\[spaces\]'"):
        small_space(corpus).vectors(make_context(torch.ones(300, 2)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either a corpus to train on or a vectors file"),
        ({"corpus": "a.txt", "vectors": "a.vec"}, "either a corpus to train on or a vectors file"),
        ({"vectors": "a.vec", "names": "word"}, "names must be token or surface: got 'word'"),
        ({"corpus": "a.txt", "width": 0}, "at least 1 and buckets at least 0"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FastTextSpace(**arguments)
