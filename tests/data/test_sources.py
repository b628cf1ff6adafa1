"""What a source means before any of its text is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lightning_vocab.data.sources import TextSource, as_sources, find_files, identify, plain


def test_plain_string_is_a_source_of_that_path() -> None:
    assert as_sources("a.txt", "train") == (TextSource("a.txt", split="train"),)


def test_plain_values_of_a_source_give_the_source_again() -> None:
    source = TextSource("a.jsonl", "body", split="train[:5%]", max_documents=3)
    assert as_sources(plain([source]), "train") == (source,)


def test_demo_text_to_validate_on_is_the_validation_split_by_default() -> None:
    assert as_sources("demo:english", "validation")[0].split == "validation"


def test_demo_text_to_test_on_is_the_validation_split_by_default() -> None:
    assert as_sources("demo:english", "test")[0].split == "validation"


def test_hub_text_to_test_on_is_the_test_split_by_default() -> None:
    assert as_sources("owner/texts", "test")[0].split == "test"


def test_file_to_validate_on_is_read_whole_by_default(tmp_path: Path) -> None:
    assert as_sources(str(tmp_path / "a.txt"), "validation")[0].split == "train"


def test_split_that_is_given_holds_for_every_use() -> None:
    assert as_sources(TextSource("demo:code", split="train"), "validation")[0].split == "train"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("demo:code", "demo"),
        ("corpus.txt", "files"),
        ("./corpus", "files"),
        ("a/b/c", "files"),
        ("wikitext", "hub"),
        ("wikimedia/wikipedia", "hub"),
    ],
)
def test_path_tells_files_from_hub_names(path: str, kind: str) -> None:
    assert TextSource(path).kind == kind


def test_existing_folder_is_no_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "corpus").mkdir()
    monkeypatch.chdir(tmp_path)
    assert TextSource("corpus").kind == "files"


def test_folder_gives_its_files_by_name(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "notes.md"):
        (tmp_path / name).write_text("x")
    assert [file.name for file in find_files(str(tmp_path))] == ["a.txt", "b.txt"]


def test_missing_file_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"No file or folder 'nowhere\.txt'"):
        find_files("nowhere.txt")


def test_unknown_suffix_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(ValueError, match=r"a\.csv'.*\.txt, \.jsonl, \.jsonl\.gz or \.parquet"):
        find_files(str(tmp_path / "a.csv"))


def test_folder_of_several_kinds_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "b.jsonl").write_text("{}")
    with pytest.raises(ValueError, match=r"mixes \.jsonl and \.txt files"):
        find_files(str(tmp_path))


def test_folder_without_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="in the folder"):
        find_files(str(tmp_path))


def test_empty_path_is_refused() -> None:
    with pytest.raises(ValueError, match="empty string"):
        TextSource("")


def test_limit_below_one_document_is_refused() -> None:
    with pytest.raises(ValueError, match="max_documents of at least 1"):
        TextSource("a.txt", max_documents=0)


def test_empty_list_of_sources_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one text source for train"):
        as_sources([], "train")


def test_identity_changes_with_the_content_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one")
    before = identify(TextSource(str(file)))
    file.write_text("four")
    assert identify(TextSource(str(file))) != before


def test_identity_changes_with_the_time_of_change(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one")
    before = identify(TextSource(str(file)))
    os.utime(file, ns=(1, 1))
    assert identify(TextSource(str(file))) != before
