from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from gensim.models import KeyedVectors

from lightning_vocab.initializers.spaces import word_vectors
from lightning_vocab.initializers.spaces.word_vectors import check_vectors_file, read_vec

LINES = ["3 2", "the 1.5 -2", "ไทย 1e-3 4 ", "a\u00a0b 0 0"]


def write(folder: Path, lines: list[str], name: str = "some.vec") -> str:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("block", [1, 2, 20_000])
def test_a_file_gives_its_words_and_numbers(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_vectors, "_BLOCK_LINES", block)
    read = read_vec(write(tmp_path, LINES))
    assert list(read.words) == ["the", "ไทย", "a\u00a0b"]
    assert read.vectors.tolist() == [[1.5, -2], [pytest.approx(0.001), 4], [0, 0]]
    vectors, knows = read.of(["ไทย", None, "gone", "a\u00a0b"])
    # A vector of zeros has no direction, so its word is not known.
    assert knows.tolist() == [True, False, False, False]
    np.testing.assert_allclose(vectors[0], [0.001, 4])


def test_the_same_numbers_come_as_from_the_library(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    keyed = KeyedVectors(7)
    keyed.add_vectors([f"word{number}" for number in range(50)], drawn)
    path = str(tmp_path / "a.vec")
    keyed.save_word2vec_format(path)
    np.testing.assert_array_equal(read_vec(path).vectors, drawn)
    packed = tmp_path / "a.vec.gz"
    packed.write_bytes(gzip.compress(Path(path).read_bytes()))
    np.testing.assert_array_equal(read_vec(str(packed)).vectors, drawn)


def test_only_wanted_and_only_the_first_words_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path, ["4 1", "a 1", "b 2", "a 3", "c 4"])
    read = read_vec(path, wanted={"a", "c", "z"})
    assert (list(read.words), read.vectors.tolist()) == (["a", "c"], [[1], [4]])
    assert list(read_vec(path, max_words=2).words) == ["a", "b"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["3 2", "a 1 2", "b 1 2"], r"cut short: .* more than the 2 words .* \(expected 3\)"),
        (["3 2", "a 1 2", "b 1"], "Expected 2 numbers .* got 1 in line 3"),
        (["1 3", "a 1 2"], "Expected 3 numbers .* got 2 in line 2"),
        (["1 2", "a 1 x"], "something else than numbers"),
        (["2 2", "a 1 2", "b nan 1"], "1 words have others, such as 'b'"),
        (["1 2", "a 1 inf"], "1 words have others"),
        (["the 1.0 2.0"], "number of words and their width in the first line"),
        ([""], "number of words and their width in the first line"),
    ],
)
def test_a_damaged_file_is_an_error(lines: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_vec(write(tmp_path, lines))


def test_a_file_of_unknown_kind_or_none_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"got 'vectors\.npy'"):
        check_vectors_file("vectors.npy")
    with pytest.raises(FileNotFoundError, match=r"'gone\.vec'"):
        check_vectors_file("gone.vec")
