from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gensim.models import FastText
from gensim.models.fasttext import save_facebook_model

from lightning_vocab.initializers.spaces.aligned import AlignedSpace
from lightning_vocab.initializers.wechsel import WECHSEL
from tests.initializers.contexts import id_of, make_context, pico_tokenizer

SOURCE = ("the", "cat", "sat", "mat", "dog", "log", "and", "model", "of", "text", "mats")
TARGET = ("catdog", "cats", "the", "on", "catdog cats", "mat")
NEW = ("catdog", "cats", "<|tool|>")
WIDTH = 3


def write_vec(folder: Path, name: str, vectors: Mapping[str, Any]) -> str:
    lines = [f"{len(vectors)} {len(next(iter(vectors.values())))}"]
    lines += [
        f"{word.replace(' ', '_')} {' '.join(map(str, row))}" for word, row in vectors.items()
    ]
    path = folder / name
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def write_pairs(folder: Path, pairs: list[tuple[str, str]]) -> str:
    path = folder / "pairs.tsv"
    path.write_text("\n".join("\t".join(pair) for pair in pairs) + "\n\n", encoding="utf-8")
    return str(path)


def drawn(words: tuple[str, ...], seed: int) -> dict[str, Any]:
    numbers = np.random.default_rng(seed).normal(size=(len(words), WIDTH)).round(3)
    return dict(zip(words, numbers, strict=True))


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str, str]:
    """Source words have capitals in the dictionary, and some words are in no file."""
    pairs = [("The", "the"), ("MAT", "mat"), ("dog", "on"), ("gone", "the"), ("cat", "cats")]
    return (
        write_vec(tmp_path, "source.vec", drawn(SOURCE, 0)),
        write_vec(tmp_path, "target.vec", drawn(TARGET, 1)),
        write_pairs(tmp_path, pairs),
    )


def naive_vectors(tokenizer: Any, vectors: dict[str, Any]) -> dict[int, Any]:
    """Token after token: the mean of the words that contain it, weighted by 1 / rank."""
    found: dict[int, list[tuple[float, Any]]] = {}
    for rank, (word, vector) in enumerate(vectors.items(), start=1):
        for form in (word.replace(" ", "_"), " " + word.replace(" ", "_")):
            for id in set(tokenizer.encode(form)):
                found.setdefault(id, []).append((1 / rank, vector))
    return {
        id: sum(weight * vector for weight, vector in parts) / sum(weight for weight, _ in parts)
        for id, parts in found.items()
    }


def test_tokens_have_the_papers_vectors(files: tuple[str, str, str]) -> None:
    context = make_context(torch.ones(300, 2))
    found = AlignedSpace(*files).vectors(context)
    source, target = drawn(SOURCE, 0), drawn(TARGET, 1)
    pairs = [("the", "the"), ("mat", "mat"), ("dog", "on"), ("cat", "cats")]
    left = np.stack([source[one] for one, _ in pairs])
    right = np.stack([target[other] for _, other in pairs])
    first, _, last = np.linalg.svd(left.T @ right)
    old = naive_vectors(pico_tokenizer(), source)
    assert found.knows_old.nonzero().flatten().tolist() == sorted(old)
    for id, vector in old.items():
        np.testing.assert_allclose(found.old[id], vector @ first @ last, atol=1e-5)
    new = naive_vectors(context.tokenizer, target)
    ids = context.expansion.new_ids
    assert found.knows_new.tolist() == [id in new for id in ids] == [True, True, False]
    for place in (0, 1):
        np.testing.assert_allclose(found.new[place], new[ids[place]], atol=1e-5)


def test_a_turned_language_is_turned_back(tmp_path: Path) -> None:
    # The target says what the source says in other words, and every vector is turned.
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(WIDTH, WIDTH)))
    source = drawn(("cat", "the", "dog", "mat", "log"), 0)
    translated = {"cat": "cats", "the": "on", "dog": "of", "mat": "text", "log": "and"}
    target = {translated[word]: vector @ turn for word, vector in source.items()}
    space = AlignedSpace(
        write_vec(tmp_path, "source.vec", source),
        write_vec(tmp_path, "target.vec", target),
        write_pairs(tmp_path, [(word, translated[word]) for word in ("the", "dog", "mat", "log")]),
    )
    context = make_context(torch.randn(300, 2), words=["cats"])
    found = space.vectors(context)
    expected = torch.tensor(target["cats"], dtype=torch.float32)
    torch.testing.assert_close(found.new[0], expected)
    torch.testing.assert_close(found.old[id_of("cat")], expected, atol=1e-4, rtol=1e-4)
    nearest = WECHSEL(space, k=1).rows(context)[0][0]
    alike = found.old @ expected
    same = (alike == alike[id_of("cat")]).nonzero().flatten()
    assert any(nearest.allclose(context.input_rows[id]) for id in same)


def test_a_model_of_fasttext_gives_tokens_vectors_of_their_n_grams(tmp_path: Path) -> None:
    model = FastText([list(SOURCE)] * 5, vector_size=WIDTH, min_count=1, bucket=40, seed=3)
    path = str(tmp_path / "some.bin")
    save_facebook_model(model, path)
    pairs = write_pairs(tmp_path, [("the", "the"), ("cat", "cat"), ("dog", "dog"), ("sat", "mat")])
    found = AlignedSpace(path, path, pairs).vectors(make_context(torch.ones(300, 2)))
    for place, word in enumerate(NEW):
        np.testing.assert_allclose(found.new[place], model.wv[word], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("too_few", ["error", "warn"])
def test_fewer_known_pairs_than_the_width_are_counted(
    too_few: Any, files: tuple[str, str, str], tmp_path: Path
) -> None:
    pairs = write_pairs(tmp_path, [("the", "the"), ("gone", "on"), ("cat", "gone")])
    space = AlignedSpace(files[0], files[1], pairs, too_few=too_few)
    context = make_context(torch.ones(300, 2))
    message = r"only 1 pairs \(in all casings\) of the 3 .* than the vectors are wide \(3\)"
    if too_few == "warn":
        with pytest.warns(UserWarning, match=message):
            assert space.vectors(context).knows_new.tolist() == [True, True, False]
    else:
        with pytest.raises(ValueError, match=message):
            space.vectors(context)


def test_a_dictionary_of_unknown_words_is_an_error(
    files: tuple[str, str, str], tmp_path: Path
) -> None:
    pairs = write_pairs(tmp_path, [("gone", "on"), ("cat", "gone")])
    space = AlignedSpace(files[0], files[1], pairs, too_few="warn")
    with pytest.raises(ValueError, match="only 0 pairs"):
        space.vectors(make_context(torch.ones(300, 2)))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("cat", "cat"), ("the", "the")], "All 2 pairs of .* the same word on both sides"),
        ([("cat",)], "two words with a tab between in line 1"),
        ([("the", "the"), ("", "cat")], "two words with a tab between in line 2"),
        ([], "is empty"),
    ],
)
def test_a_dictionary_that_is_none_is_an_error(
    pairs: Any, message: str, files: tuple[str, str, str], tmp_path: Path
) -> None:
    space = AlignedSpace(files[0], files[1], write_pairs(tmp_path, pairs))
    with pytest.raises(ValueError, match=message):
        space.vectors(make_context(torch.ones(300, 2)))


def test_files_of_two_widths_are_an_error(files: tuple[str, str, str], tmp_path: Path) -> None:
    narrow = write_vec(tmp_path, "narrow.vec", {"the": [1.0, 2.0]})
    with pytest.raises(ValueError, match=r"of one width, got 3 in .* and 2 in"):
        AlignedSpace(files[0], narrow, files[2]).vectors(make_context(torch.ones(300, 2)))


def test_bad_arguments_are_refused(files: tuple[str, str, str]) -> None:
    with pytest.raises(ValueError, match="too_few must be error or warn"):
        AlignedSpace(*files, too_few="skip")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match="at least 1 word, got 0"):
        AlignedSpace(*files, max_words=0)
    with pytest.raises(FileNotFoundError, match=r"no dictionary 'gone\.tsv'"):
        AlignedSpace(files[0], files[1], "gone.tsv")
