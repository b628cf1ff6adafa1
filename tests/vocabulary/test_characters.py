from __future__ import annotations

from typing import Any

import pytest

from lightning_vocab.vocabulary.characters import (
    DIGIT,
    FOREIGN,
    LETTER,
    OTHER,
    SPACE,
    WANTED,
    check_scripts,
    class_table,
    script_table,
)


@pytest.mark.parametrize(
    ("character", "expected"),
    [
        ("a", LETTER),
        ("ก", LETTER),
        ("\u0e35", LETTER),  # a Thai vowel sign, a mark
        ("\u0301", LETTER),  # combining acute
        ("\u200d", LETTER),  # zero width joiner
        ("中", LETTER),
        ("7", DIGIT),
        ("๗", DIGIT),
        ("½", DIGIT),
        (" ", SPACE),
        ("\u3000", SPACE),
        ("!", OTHER),
        ("😀", OTHER),
        ("\ufe0f", OTHER),  # variation selector: belongs to the emoji in front
        ("\x00", OTHER),
    ],
)
def test_class_of_a_character(character: str, expected: int) -> None:
    assert class_table()[ord(character)] == expected


@pytest.mark.parametrize(
    ("character", "expected"),
    [
        ("ก", WANTED),
        ("\u0e35", WANTED),
        ("a", FOREIGN),
        ("中", FOREIGN),
        ("!", 0),
        ("7", 0),
        (" ", 0),
    ],
)
def test_script_of_a_character(character: str, expected: int) -> None:
    assert script_table(("Thai",))[ord(character)] == expected


def test_no_scripts_means_all() -> None:
    assert check_scripts(None) == ()


@pytest.mark.parametrize("scripts", [["Thai}|a{"], [""], ["Thai", "Latn!"]])
def test_a_name_that_is_no_script_is_refused(scripts: list[str]) -> None:
    with pytest.raises(ValueError, match="Unknown script"):
        check_scripts(scripts)


def test_an_empty_list_of_scripts_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one script name"):
        check_scripts([])


@pytest.mark.parametrize("scripts", [5, [5], {"Thai"}])
def test_other_than_a_list_of_names_is_refused(scripts: Any) -> None:
    with pytest.raises(TypeError, match="list of script names in scripts, got "):
        check_scripts(scripts)


def test_one_string_is_no_list_of_scripts() -> None:
    scripts: Any = "Thai"
    with pytest.raises(TypeError, match="got the string 'Thai'"):
        check_scripts(scripts)
