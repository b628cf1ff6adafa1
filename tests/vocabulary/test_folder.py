from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lightning_vocab.vocabulary import (
    MANIFEST_NAME,
    AddTokens,
    ExpandedTokenizer,
    load_expansion,
    load_tokenizer,
    save_expansion,
)
from tests.conftest import make_tokenizer


@pytest.fixture
def expanded(tokenizer: PreTrainedTokenizerFast) -> ExpandedTokenizer:
    return AddTokens(["<|tool|>"]).extend(tokenizer)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_folder_round_trip_gives_equal_parts(expanded: ExpandedTokenizer, tmp_path: Path) -> None:
    path = save_expansion(expanded, tmp_path / "deep" / "expansion")
    loaded = load_expansion(str(path))
    assert loaded.expansion == expanded.expansion
    assert loaded.tokenizer.get_vocab() == expanded.tokenizer.get_vocab()


def test_nothing_else_is_left_beside_the_folder(
    expanded: ExpandedTokenizer, tmp_path: Path
) -> None:
    save_expansion(expanded, tmp_path / "expansion")
    save_expansion(expanded, tmp_path / "expansion", overwrite=True)
    assert names(tmp_path) == {"expansion"}


def test_an_expansion_is_not_replaced_unasked(expanded: ExpandedTokenizer, tmp_path: Path) -> None:
    save_expansion(expanded, tmp_path / "expansion")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save_expansion(expanded, tmp_path / "expansion")


def test_overwrite_replaces_the_whole_folder(
    expanded: ExpandedTokenizer, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    path = save_expansion(AddTokens(["<|old|>"]).extend(tokenizer), tmp_path / "expansion")
    (path / "stale.txt").write_text("old")
    save_expansion(expanded, path, overwrite=True)
    assert "stale.txt" not in names(path)
    assert load_expansion(path).expansion == expanded.expansion


def test_a_folder_that_is_no_expansion_is_never_replaced(
    expanded: ExpandedTokenizer, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="not an expansion folder"):
        save_expansion(expanded, tmp_path, overwrite=True)
    assert names(tmp_path) == {"thesis.tex"}


def test_a_file_is_never_replaced(expanded: ExpandedTokenizer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(FileExistsError, match="is not a folder"):
        save_expansion(expanded, tmp_path / "file", overwrite=True)


def test_an_empty_folder_is_filled(expanded: ExpandedTokenizer, tmp_path: Path) -> None:
    (tmp_path / "expansion").mkdir()
    path = save_expansion(expanded, tmp_path / "expansion")
    assert MANIFEST_NAME in names(path)


def test_a_crash_while_writing_leaves_the_old_folder_alone(
    expanded: ExpandedTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_expansion(expanded, tmp_path / "expansion")
    before = {file.name: file.read_bytes() for file in path.iterdir()}

    def crash(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(expanded.tokenizer, "save_pretrained", crash)
    with pytest.raises(OSError, match="disk full"):
        save_expansion(expanded, path, overwrite=True)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    assert names(tmp_path) == {"expansion"}


def test_a_crash_while_renaming_restores_the_old_folder(
    expanded: ExpandedTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_expansion(expanded, tmp_path / "expansion")
    rename = Path.rename

    def crash_for_new(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", crash_for_new)
    with pytest.raises(OSError, match="no"):
        save_expansion(expanded, path, overwrite=True)
    assert load_expansion(path).expansion == expanded.expansion
    assert names(tmp_path) == {"expansion"}


def test_a_tokenizer_that_is_not_the_manifests_is_not_saved(
    expanded: ExpandedTokenizer, tmp_path: Path
) -> None:
    wrong = replace(expanded, tokenizer=make_tokenizer())
    with pytest.raises(ValueError, match="not the one its manifest describes"):
        save_expansion(wrong, tmp_path / "expansion")
    assert names(tmp_path) == set()


def test_a_tokenizer_changed_in_the_folder_is_refused(
    expanded: ExpandedTokenizer, tmp_path: Path
) -> None:
    path = save_expansion(expanded, tmp_path / "expansion")
    tokenizer = load_tokenizer(path)
    tokenizer.chat_template = "{{ messages }}"
    tokenizer.save_pretrained(str(path))
    with pytest.raises(ValueError, match="changed after the manifest was made"):
        load_expansion(path)


def test_a_broken_manifest_is_named(expanded: ExpandedTokenizer, tmp_path: Path) -> None:
    path = save_expansion(expanded, tmp_path / "expansion")
    (path / MANIFEST_NAME).write_text("{}")
    with pytest.raises(ValueError, match=rf"{MANIFEST_NAME}: .*schema_version None"):
        load_expansion(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("id", 5, r"lists '<\|tool\|>' as token 5, the tokenizer gives it id 300"),
        ("token", "bogus", "lists 'bogus' as token 300, the tokenizer lacks that token"),
        ("num_rows", 100_000, r"expected num_rows=301 .* got 100000"),
    ],
)
def test_a_manifest_that_its_tokenizer_contradicts_is_refused(
    key: str, value: object, message: str, expanded: ExpandedTokenizer, tmp_path: Path
) -> None:
    path = save_expansion(expanded, tmp_path / "expansion") / MANIFEST_NAME
    manifest = json.loads(path.read_text(encoding="utf-8"))
    (manifest if key in manifest else manifest["tokens"][0])[key] = value
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=rf"{MANIFEST_NAME} does not fit its tokenizer.*{message}"):
        load_expansion(path.parent)


def test_a_manifest_without_the_last_token_is_refused(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    made = AddTokens(["<a>", "<b>"]).extend(tokenizer)
    path = save_expansion(made, tmp_path / "expansion") / MANIFEST_NAME
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["tokens"].pop()
    path.write_text(json.dumps({**manifest, "num_rows": 301}))
    with pytest.raises(ValueError, match=r"expected num_rows=302 .* got 301"):
        load_expansion(path.parent)


def test_a_manifest_that_its_tokenizer_contradicts_is_not_saved(
    expanded: ExpandedTokenizer, tmp_path: Path
) -> None:
    wrong = replace(expanded, expansion=replace(expanded.expansion, num_rows=400))
    with pytest.raises(ValueError, match="The manifest to be saved does not fit"):
        save_expansion(wrong, tmp_path / "expansion")
    assert names(tmp_path) == set()


def test_a_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not an expansion folder"):
        load_expansion(tmp_path)


@pytest.mark.parametrize("path", ["./nowhere", "/no/such/folder", "nowhere/", ""])
def test_a_path_that_does_not_exist_is_refused(path: str) -> None:
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        load_tokenizer(path)


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No tokenizer could be read"):
        load_tokenizer(tmp_path)


def without_a_merged_token(data: dict[str, Any]) -> None:
    del data["model"]["vocab"]["at"]


def of_an_unknown_kind(data: dict[str, Any]) -> None:
    data["model"]["type"] = "Nope"


@pytest.mark.parametrize("edit", [without_a_merged_token, of_an_unknown_kind])
def test_json_that_is_no_tokenizer_is_refused_by_the_folder_s_name(
    edit: Callable[[dict[str, Any]], None], expanded: ExpandedTokenizer, tmp_path: Path
) -> None:
    path = save_expansion(expanded, tmp_path / "grown")
    data = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))
    edit(data)
    (path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    for load in (load_tokenizer, load_expansion):
        with pytest.raises(ValueError, match=r"No tokenizer could be read from '.*grown'"):
            load(path)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "null", '"x"', "{", ""])
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", MANIFEST_NAME])
def test_files_that_hold_something_else_are_refused_by_the_folder_s_name(
    name: str, text: str, expanded: ExpandedTokenizer, tmp_path: Path
) -> None:
    path = save_expansion(expanded, tmp_path / "grown")
    (path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="grown"):
        load_expansion(path)


def test_errors_that_are_not_the_folder_s_fault_go_through(
    expanded: ExpandedTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*args: object, **kwargs: object) -> None:
        raise MemoryError("full")

    path = save_expansion(expanded, tmp_path / "grown")
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", failing)
    with pytest.raises(MemoryError, match="full"):
        load_expansion(path)


@pytest.mark.assets
def test_loading_prints_nothing(assets: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_tokenizer(assets / "tokenizers/chinese-llama-sp20k")
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
