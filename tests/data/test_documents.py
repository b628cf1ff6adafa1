"""What is read from each kind of source, and what is said about one that cannot be read."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow  # type: ignore[import-untyped]  # it ships no types
import pyarrow.parquet  # type: ignore[import-untyped]  # it ships no types
import pytest

from lightning_vocab.data import lines
from lightning_vocab.data.documents import identify_documents, read_documents
from lightning_vocab.data.sources import TextSource, as_sources
from lightning_vocab.demo import corpus


def read(path: Path | str, cache: Path, **arguments: Any) -> list[str]:
    source = as_sources(TextSource(str(path), **arguments), "train")[0]
    return list(read_documents(source, str(cache)))


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, columns: dict[str, list[Any]]) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize(
    ("sample_by", "documents"),
    [
        ("line", ["one é", "two", "three"]),
        ("paragraph", ["one é\ntwo", "three\n"]),
        ("document", ["one é\ntwo\n\nthree\n"]),
    ],
)
def test_text_file_is_cut_as_asked(tmp_path: Path, sample_by: str, documents: list[str]) -> None:
    (tmp_path / "a.txt").write_text("one é\ntwo\n\nthree\n", encoding="utf-8")
    assert read(tmp_path / "a.txt", tmp_path, sample_by=sample_by) == documents


def test_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\n")
    assert read(tmp_path / "a.txt", tmp_path) == ["one"]


def test_json_lines_give_the_named_field(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [{"body": "x", "n": 1}, {"n": "mixed", "body": "é"}])
    assert read(file, tmp_path, text_field="body") == ["x", "é"]


def test_text_that_looks_like_a_date_stays_text(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [{"text": "2024-01-01"}])
    assert read(file, tmp_path) == ["2024-01-01"]


def test_compressed_json_lines_are_read(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write('{"text": "x"}\n\n{"text": "y"}\n')
    assert read(tmp_path / "a.jsonl.gz", tmp_path) == ["x", "y"]


def test_parquet_gives_the_named_column(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", {"body": ["x", None, "y"], "n": [1, 2, 3]})
    assert read(file, tmp_path, text_field="body") == ["x", "y"]


def test_folder_is_read_as_one_source(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in ("b", "a"):
        (folder / f"{name}.txt").write_text(name)
    assert read(folder, tmp_path / "cache") == ["a", "b"]


@pytest.mark.parametrize(
    ("split", "documents"),
    [("train[:50%]", ["0", "1"]), ("train[3:]", ["3"]), ("train[:1]+train[2:3]", ["0", "2"])],
)
def test_split_may_be_a_slice(tmp_path: Path, split: str, documents: list[str]) -> None:
    (tmp_path / "a.txt").write_text("0\n1\n2\n3\n")
    assert read(tmp_path / "a.txt", tmp_path, split=split) == documents


def test_limit_keeps_the_first_documents(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [{"text": str(number)} for number in range(5)])
    assert read(file, tmp_path, max_documents=2) == ["0", "1"]


def test_blank_documents_are_left_out_and_counted(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [{"text": t} for t in ("x", "", " \n", None, "y")])
    documents = read_documents(TextSource(str(file), split="train"), str(tmp_path))
    assert (list(documents), documents.num_blank) == (["x", "y"], 3)


def test_changed_file_is_read_anew(tmp_path: Path) -> None:
    read(write_jsonl(tmp_path / "a.jsonl", [{"text": "old"}]), tmp_path)
    file = write_jsonl(tmp_path / "a.jsonl", [{"text": "newer"}])
    assert read(file, tmp_path) == ["newer"]


@pytest.mark.parametrize("suffix", ["txt", "parquet"])
def test_file_of_another_size_is_read_anew_though_the_time_is_the_same(
    tmp_path: Path, suffix: str
) -> None:
    file = tmp_path / f"a.{suffix}"
    found = []
    for text in ("old", "newer" * 99):
        if suffix == "txt":
            file.write_text(text)
        else:
            write_parquet(file, {"text": [text]})
        os.utime(file, ns=(10**18, 10**18))
        found += read(file, tmp_path / "cache")
    assert found == ["old", "newer" * 99]


def test_unchanged_text_file_is_checked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = []
    read_lines = lines.read_lines

    def watched(file: Path) -> Iterator[tuple[int, str]]:
        checked.append(file)
        return read_lines(file)

    monkeypatch.setattr(lines, "read_lines", watched)
    (tmp_path / "a.txt").write_text("x")
    read(tmp_path / "a.txt", tmp_path)
    read(tmp_path / "a.txt", tmp_path)
    assert len(checked) == 1


def test_demo_text_is_that_of_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def code(split: str) -> Iterator[str]:
        yield from (f"{split} one", f"{split} two")

    monkeypatch.setattr(corpus, "code", code)
    assert read("demo:code", tmp_path, split="validation[:1]") == ["validation one"]


def test_hub_data_set_is_asked_for_by_name_and_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def load(path: str, name: str | None, *, split: str, cache_dir: str) -> datasets.Dataset:
        asked.append((path, name, split))
        return datasets.Dataset.from_dict({"body": ["x"], "n": [1]})

    monkeypatch.setattr(datasets, "load_dataset", load)
    source = TextSource("owner/texts", "body", split="train[:1%]", name="th")
    assert list(read_documents(source, str(tmp_path))) == ["x"]
    assert asked == [("owner/texts", "th", "train[:1%]")]


def test_identity_of_a_hub_data_set_holds_its_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = datasets.Dataset.from_dict({"text": ["x"]})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: table)
    identity = identify_documents(TextSource("owner/texts", split="train"), str(tmp_path))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: table.select([0, 0]))
    assert identify_documents(TextSource("owner/texts", split="train"), str(tmp_path)) != identity


def test_hub_that_cannot_be_reached_is_told_with_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any, **__: Any) -> datasets.Dataset:
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(ConnectionError, match=r"'corpus' is no file or folder here.*no network"):
        read("corpus", tmp_path)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.jsonl.gz"])
def test_line_that_is_not_utf8_is_named(tmp_path: Path, name: str) -> None:
    content = b'{"text": "x"}\n{"text": "\xff"}\n'
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(ValueError, match=rf"{name} is not UTF-8: line 2, byte 11 .*0xff"):
        read(tmp_path / name, tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'text': 1}", r"line 2 of .*a\.jsonl is none"),
        ('["x"]', r"field 'text' on line 2 of .*no object but \['x'\]"),
        ('{"body": "x"}', r"field 'text' on line 2 of .*which has 'body'\. Name the field"),
        (r'{"text": "a\ud800"}', r"on line 2 of .*surrogate pair \('\\ud800'\) at character 2"),
        ('{"text": 5}', r"Expected text in the field 'text' on line 2 of .*got 5"),
    ],
)
def test_bad_json_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"text": "x"}}\n{line}\n')
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "a.jsonl", tmp_path)


def test_damaged_archive_is_named_with_its_last_good_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x"}\n')[:-6])
    with pytest.raises(ValueError, match=r"a\.jsonl\.gz cannot be unpacked after line"):
        read(tmp_path / "a.jsonl.gz", tmp_path)


def test_missing_column_is_told_with_those_there_are(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", {"body": ["x"], "n": [1]})
    with pytest.raises(ValueError, match=r"column 'text' in .*which has: 'body', 'n'"):
        read(file, tmp_path)


def test_column_without_text_is_refused(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", {"text": [1]})
    with pytest.raises(ValueError, match=r"Expected text in the column 'text' of .*int64"):
        read(file, tmp_path)


def test_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("text")
    with pytest.raises(ValueError, match=r"a\.parquet is not a Parquet file"):
        read(tmp_path / "a.parquet", tmp_path)


def test_source_without_any_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n  \n")
    with pytest.raises(ValueError, match=r"No text in .*2 documents and all are blank"):
        read(tmp_path / "a.txt", tmp_path)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match="No text in"):
        read(tmp_path / name, tmp_path)


def test_empty_parquet_table_is_refused(tmp_path: Path) -> None:
    table = pyarrow.table({"text": pyarrow.array([], pyarrow.string())})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="No text in"):
        read(tmp_path / "a.parquet", tmp_path)


def test_split_that_files_do_not_have_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match=r"no split 'test'.*'train\[:95%\]'"):
        read(tmp_path / "a.txt", tmp_path, split="test")


def test_unknown_demo_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected demo:code or demo:english, got 'demo:thai'"):
        read("demo:thai", tmp_path)
