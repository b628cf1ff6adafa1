from __future__ import annotations

from pathlib import Path

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_vocab.distillation.reservoir import SNIPPET, Reservoir
from lightning_vocab.distillation.snippets import Mining, Snippets
from lightning_vocab.distillation.stream import TokenStream
from lightning_vocab.vocabulary import VocabularyExpansion
from tests.distillation.conftest import make_expansion, make_stream

TWO = make_expansion((1, 2), (1, 2, 3))
DOCUMENTS = st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=30), min_size=1, max_size=8)


def mining(
    num_snippets: int = 3, snippet_length: int = 5, max_pieces: int = 100, seed: int = 1
) -> Mining:
    return Mining(num_snippets, snippet_length, max_pieces, seed)


def read(stream: TokenStream, snippets: Snippets) -> list[tuple[int, list[int]]]:
    return [
        (int(row["token"]), stream.read(int(row["start"]), int(row["length"])).tolist())
        for row in snippets.rows
    ]


def pieces_of(ids: list[int], expansion: VocabularyExpansion) -> int:
    lengths = {token.id: len(token.pieces) for token in expansion.tokens}
    return sum(lengths.get(id, 1) for id in ids)


def test_a_short_document_is_one_whole_snippet_without_its_start_token() -> None:
    stream = make_stream([[9, 10, 4, 0]], [[9, 4, 5, 0], [9, 11, 0]], starts_documents=True)
    snippets = mining().mine(stream, TWO)
    assert read(stream, snippets) == [(0, [10, 4, 0]), (1, [11, 0])]
    assert snippets.num_occurrences.tolist() == [1, 1]


def test_a_window_is_as_long_as_its_document_allows_and_stays_in_it() -> None:
    stream = make_stream([[1] * 9 + [10]], [[2] * 20, [10, *[3] * 9]])
    for seed in range(8):
        read_ids = [ids for _, ids in read(stream, mining(seed=seed).mine(stream, TWO))]
        assert sorted(read_ids) == [[1, 1, 1, 1, 10], [10, 3, 3, 3, 3]]


@given(documents=DOCUMENTS, length=st.integers(1, 8), max_pieces=st.integers(3, 12))
def test_every_snippet_holds_its_token_within_all_limits(
    documents: list[list[int]], length: int, max_pieces: int
) -> None:
    stream = make_stream(documents)
    snippets = mining(4, length, max_pieces).mine(stream, TWO)
    flat = [id for ids in documents for id in ids]
    assert snippets.num_occurrences.tolist() == [flat.count(10), flat.count(11)]
    for token, ids in read(stream, snippets):
        assert 10 + token in ids
        assert len(ids) <= length
        assert pieces_of(ids, TWO) <= max_pieces
        assert any(ids == whole[i : i + len(ids)] for whole in documents for i in range(30))
    found = numpy.bincount(snippets.rows["token"], minlength=2)
    assert found.tolist() == [min(4, flat.count(10)), min(4, flat.count(11))]


@pytest.mark.slow
@given(documents=DOCUMENTS, seed=st.integers(0, 5))
def test_the_snippets_do_not_depend_on_how_the_text_is_stored(
    documents: list[list[int]], seed: int
) -> None:
    together = make_stream(documents)
    apart = make_stream(*([ids] for ids in documents), num_sources=len(documents))
    rows = [mining(2, seed=seed).mine(stream, TWO).rows.tolist() for stream in (together, apart)]
    assert rows[0] == rows[1]


def test_another_seed_draws_other_snippets() -> None:
    stream = make_stream([[10, 1, 2, 3, 4] * 50])
    first, second = (mining(seed=seed).mine(stream, TWO).rows["start"].tolist() for seed in (1, 2))
    assert first != second


@pytest.mark.slow
def test_every_occurrence_is_drawn_equally_often() -> None:
    # 3 of 10 occurrences in each of 500 draws: 150 +- 10 (one standard deviation) for each.
    stream = make_stream([[10]] * 6, [[10]] * 4)
    drawn = numpy.zeros(10)
    for seed in range(500):
        drawn[mining(3, 1, seed=seed).mine(stream, TWO).rows["start"]] += 1
    assert drawn.sum() == 1_500
    assert abs(drawn - 150).max() < 45


def test_a_token_stands_at_every_place_of_its_snippet_equally_often() -> None:
    documents = [[*range(2, 7), 10, *range(2, 7)]] * 2_500
    stream = make_stream(documents)
    places = [ids.index(10) for _, ids in read(stream, mining(2_500, 5).mine(stream, TWO))]
    # 2,500 windows over 5 places: 500 +- 20 each.
    assert abs(numpy.bincount(places, minlength=5) - 500).max() < 90


def test_the_reservoir_never_holds_more_than_it_states() -> None:
    reservoir = Reservoir(num_tokens=3, size=4)
    generator = numpy.random.default_rng(3)
    keys = []
    for _ in range(50):
        portion = numpy.zeros(10, SNIPPET)
        portion["token"], portion["key"] = generator.integers(0, 3, 10), generator.random(10)
        keys.append(portion)
        reservoir.add(portion)
        assert reservoir._num_rows <= 2 * 4 * 3
    everything = numpy.concatenate(keys)
    for token in range(3):
        kept = reservoir.rows()
        smallest = numpy.sort(everything["key"][everything["token"] == token])[:4]
        assert kept["key"][kept["token"] == token].tolist() == smallest.tolist()
        assert reservoir.limits[token] == smallest[-1]


def test_snippets_survive_being_written(tmp_path: Path) -> None:
    snippets = mining().mine(make_stream([[1, 10, 11, 2]]), TWO)
    snippets.save(tmp_path / "snippets.npz")
    loaded = Snippets.load(tmp_path / "snippets.npz")
    assert loaded.rows.tolist() == snippets.rows.tolist()
    assert loaded.num_occurrences.tolist() == [1, 1]


def test_a_stream_without_new_tokens_gives_no_snippet() -> None:
    snippets = mining().mine(make_stream([[1, 2], [3]]), TWO)
    assert len(snippets.rows) == 0
    assert snippets.num_occurrences.tolist() == [0, 0]


def test_a_token_whose_pieces_fit_no_row_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'new1'.* has 3 pieces.*row of 3 tokens"):
        mining(max_pieces=2).mine(make_stream([[10]]), TWO)


@pytest.mark.parametrize("numbers", [(0, 5, 9), (3, 0, 9), (3, 5, 0)])
def test_numbers_below_one_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="of at least 1"):
        Mining(*numbers, seed=1)
