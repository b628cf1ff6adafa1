"""When an expansion folder is built, used as it is, refused or replaced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from lightning_vocab.data.growing import base_rows, grow, load_tokenizers
from lightning_vocab.vocabulary import AddTokens, load_expansion
from tests.conftest import make_model, make_tokenizer


def no_text() -> Iterator[str]:
    return iter(())


def must_not_be_read() -> Iterator[str]:
    raise AssertionError("the text was read although the folder stands")


def save(tokenizer: PreTrainedTokenizerFast, folder: Path) -> str:
    tokenizer.save_pretrained(str(folder))
    return str(folder)


@pytest.fixture
def base(tmp_path: Path) -> str:
    return save(make_tokenizer(), tmp_path / "base")


@pytest.fixture
def folder(tmp_path: Path, base: str) -> str:
    grow(AddTokens(["<a>"]), base, str(tmp_path / "grown"), no_text)
    return str(tmp_path / "grown")


def test_missing_folder_is_built(folder: str) -> None:
    assert [token.token for token in load_expansion(folder).expansion.tokens] == ["<a>"]


def test_folder_of_the_same_extender_is_used_without_reading_text(base: str, folder: str) -> None:
    grow(AddTokens(["<a>"]), base, folder, must_not_be_read)


def test_folder_of_another_extender_is_refused(base: str, folder: str) -> None:
    with pytest.raises(ValueError, match=r"holds another expansion.*<b>.*<a>.*overwrite_expansion"):
        grow(AddTokens(["<b>"]), base, folder, no_text)


def test_folder_of_another_base_is_refused(tmp_path: Path, folder: str) -> None:
    other = save(make_tokenizer(280), tmp_path / "other")
    with pytest.raises(ValueError, match=r"holds another expansion: .*another base tokenizer"):
        grow(AddTokens(["<a>"]), other, folder, no_text)


def test_other_expansion_is_replaced_when_asked(base: str, folder: str) -> None:
    grow(AddTokens(["<b>"]), base, folder, no_text, overwrite=True)
    assert [token.token for token in load_expansion(folder).expansion.tokens] == ["<b>"]


def test_folder_of_something_else_is_never_replaced(tmp_path: Path, base: str) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").touch()
    with pytest.raises(FileExistsError, match="not an expansion folder"):
        grow(AddTokens(["<a>"]), base, str(tmp_path / "notes"), no_text, overwrite=True)


def test_folder_that_another_node_built_meanwhile_is_used(tmp_path: Path, base: str) -> None:
    place = str(tmp_path / "grown")

    def text_that_takes_long() -> Iterator[str]:
        grow(AddTokens(["<a>"]), base, place, no_text)
        return no_text()

    grow(AddTokens(["<a>"]), base, place, text_that_takes_long)
    assert [token.token for token in load_expansion(place).expansion.tokens] == ["<a>"]


def test_other_folder_that_was_built_meanwhile_is_refused(tmp_path: Path, base: str) -> None:
    place = str(tmp_path / "grown")

    def text_that_takes_long() -> Iterator[str]:
        grow(AddTokens(["<b>"]), base, place, no_text)
        return no_text()

    with pytest.raises(FileExistsError):
        grow(AddTokens(["<a>"]), base, place, text_that_takes_long)


def test_rows_of_the_base_are_those_of_its_config(tmp_path: Path, base: str) -> None:
    make_model(num_rows=320).save_pretrained(base)
    assert base_rows(base) == 320
    grow(AddTokens(["<a>"]), base, str(tmp_path / "new"), no_text)
    assert load_expansion(tmp_path / "new").expansion.base_rows == 320


def test_base_of_a_tokenizer_alone_has_no_rows(base: str) -> None:
    assert base_rows(base) is None


def test_without_a_folder_the_base_is_the_tokenizer_to_train_with(base: str) -> None:
    tokenizers = load_tokenizers(base, None)
    assert tokenizers.grown is tokenizers.base
    assert tokenizers.expanded is None


def test_folder_of_another_base_does_not_load(tmp_path: Path, folder: str) -> None:
    with pytest.raises(ValueError, match="another base tokenizer"):
        load_tokenizers(save(make_tokenizer(280), tmp_path / "other"), folder)


def test_folder_that_is_missing_does_not_load(base: str) -> None:
    with pytest.raises(FileNotFoundError, match="is not an expansion folder"):
        load_tokenizers(base, "nowhere")
