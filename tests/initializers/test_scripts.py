from __future__ import annotations

import unicodedata

import pytest

from lightning_vocab.initializers.scripts import SCRIPTS, script_of


@pytest.mark.parametrize(
    ("text", "script"),
    [
        (" the", "Latin"),
        ("café", "Latin"),
        (unicodedata.normalize("NFD", "é"), "Latin"),
        ("при", "Cyrillic"),
        ("日本", "Han"),
        ("ที่", "Thai"),
        ("ั", "Thai"),  # a vowel sign alone
        ("हिन्दी", "Devanagari"),
        ("한국", "Hangul"),
        ("\u16a0\u16a2", "Other"),  # runes
    ],
)
def test_letters_have_the_script_that_unicode_gives_them(text: str, script: str) -> None:
    assert script_of(text) == script


@pytest.mark.parametrize("text", ["", " ", "42", "!?", "\ufffd\ufffd", "🙂", "\u0301"])
def test_text_without_letters_is_common(text: str) -> None:
    assert script_of(text) == "Common"


def test_the_majority_of_letters_decides() -> None:
    assert script_of("12345 aж бв!!!") == "Cyrillic"


def test_of_two_equal_scripts_the_first_in_the_text_is_taken() -> None:
    assert script_of("aж") == "Latin"
    assert script_of("жa") == "Cyrillic"


def test_no_script_is_listed_twice() -> None:
    assert len(set(SCRIPTS)) == len(SCRIPTS)
