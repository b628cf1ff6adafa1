"""Whether rows on disk are whole, found again, and never those of something else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from lightning_vocab.data import cache as cache_module
from lightning_vocab.data.cache import KnownTokenizer, RowCache
from lightning_vocab.data.sources import TextSource
from lightning_vocab.data.tokenise import Layout
from lightning_vocab.vocabulary.whole_files import write_whole

LAYOUT = Layout("whole", 8, 2)


@pytest.fixture
def known(tokenizer: PreTrainedTokenizerFast) -> KnownTokenizer:
    return KnownTokenizer(tokenizer, "fingerprint")


@pytest.fixture
def source(tmp_path: Path) -> TextSource:
    (tmp_path / "a.txt").write_text("the cat\n\nthe dog\n")
    return TextSource(str(tmp_path / "a.txt"), split="train")


def rows_in(folder: Path) -> list[Path]:
    return [place for place in folder.iterdir() if place.name != "text"]


def test_rows_that_are_there_are_not_made_again(
    tmp_path: Path, source: TextSource, known: KnownTokenizer
) -> None:
    cache = RowCache(tmp_path / "cache")
    cache.prepare(source, known, LAYOUT)
    before = [(place, place.stat().st_mtime_ns) for place in rows_in(cache.folder)]
    cache.prepare(source, known, LAYOUT)
    assert [(place, place.stat().st_mtime_ns) for place in rows_in(cache.folder)] == before


def test_nothing_but_rows_and_text_is_left_behind(
    tmp_path: Path, source: TextSource, known: KnownTokenizer
) -> None:
    cache = RowCache(tmp_path / "cache")
    cache.prepare(source, known, LAYOUT)
    assert len(list(cache.folder.iterdir())) == 2


def test_rows_say_what_they_were_made_of(
    tmp_path: Path, source: TextSource, known: KnownTokenizer
) -> None:
    cache = RowCache(tmp_path / "cache")
    cache.prepare(source, known, LAYOUT)
    told = json.loads((rows_in(cache.folder)[0] / "source.json").read_text(encoding="utf-8"))
    assert (told["num_documents"], told["num_blank_documents_left_out"]) == (2, 1)
    assert told["source"]["path"] == source.path


def test_blank_documents_are_told_once(
    tmp_path: Path,
    source: TextSource,
    known: KnownTokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    monkeypatch.setattr(cache_module, "rank_zero_info", told.append)
    cache = RowCache(tmp_path / "cache")
    cache.prepare(source, known, LAYOUT)
    cache.prepare(source, known, Layout("packed", 8))
    assert told == [f"Blank documents of {source.path!r} left out: 1."]


def test_changed_file_is_tokenised_anew(
    tmp_path: Path, source: TextSource, known: KnownTokenizer
) -> None:
    cache = RowCache(tmp_path / "cache")
    cache.prepare(source, known, LAYOUT)
    Path(source.path).write_text("the cat\nthe dog\na log\n")
    cache.prepare(source, known, LAYOUT)
    assert len(cache.load(source, known, LAYOUT)) == 3


@pytest.mark.parametrize("layout", [Layout("whole", 9, 2), Layout("whole", 8, 3)])
def test_rows_of_another_layout_are_not_used(
    tmp_path: Path, source: TextSource, known: KnownTokenizer, layout: Layout
) -> None:
    cache = RowCache(tmp_path / "cache")
    cache.prepare(source, known, LAYOUT)
    assert not cache.holds(source, known, layout)


def test_rows_of_another_tokenizer_are_not_used(
    tmp_path: Path, source: TextSource, known: KnownTokenizer
) -> None:
    cache = RowCache(tmp_path / "cache")
    cache.prepare(source, known, LAYOUT)
    assert not cache.holds(source, KnownTokenizer(known.tokenizer, "another"), LAYOUT)


def test_packed_rows_serve_every_block_size(
    tmp_path: Path, source: TextSource, known: KnownTokenizer
) -> None:
    cache = RowCache(tmp_path / "cache")
    cache.prepare(source, known, Layout("packed", 8))
    assert cache.holds(source, known, Layout("packed", 64))


def test_missing_rows_are_told_with_the_remedy(
    tmp_path: Path, source: TextSource, known: KnownTokenizer
) -> None:
    with pytest.raises(FileNotFoundError, match=r"Call prepare_data\(\) first"):
        RowCache(tmp_path).load(source, known, LAYOUT)


def test_crash_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def write(place: Path) -> None:
        place.mkdir()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "rows", write)
    assert list(tmp_path.iterdir()) == []


def test_result_of_a_faster_process_stays(tmp_path: Path) -> None:
    def write(place: Path) -> None:
        place.mkdir()
        (tmp_path / "rows").mkdir()
        (tmp_path / "rows" / "mine").touch()

    write_whole(tmp_path / "rows", write)
    assert [file.name for file in (tmp_path / "rows").iterdir()] == ["mine"]


def test_disk_error_is_told(tmp_path: Path) -> None:
    def write(place: Path) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(tmp_path / "rows", write)
