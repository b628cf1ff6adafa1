"""Sizes of documents against counts one by one, for any Unicode text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lightning_vocab.vocabulary.measuring.code_points import code_points_matching
from lightning_vocab.vocabulary.measuring.graphemes import count_graphemes
from lightning_vocab.vocabulary.measuring.text_size import UNITS, batches, document_units

# Characters on which the rules of clusters turn: marks, joiners, flags, Hangul, conjuncts, blanks.
TRICKY = (
    "ab 1\r\n\t\x1c\xad\u0301\u200d\u200c\ufe0f🇩🇪👩❤🔥\u0600กำแ\u0e33각각가क्षि്ം\u0eb3你か\u3000"
)
texts = st.lists(
    st.text(alphabet=st.one_of(st.sampled_from(TRICKY), st.characters(codec="utf-8")), max_size=12),
    max_size=6,
)


def counted(text: str) -> list[int]:
    letters = regex.findall(r"\p{L}", text)
    thai_like = regex.findall(r"[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]", text)
    thai_like += regex.findall(r"[\p{Han}\p{Hiragana}\p{Katakana}]", text)
    return [
        len(text.encode()),
        len(text),
        len(regex.findall(r"\X", text)),
        sum(regex.search(r"[\p{L}\p{N}]", word) is not None for word in text.split()),
        len(letters),
        sum(character in letters for character in thai_like),
    ]


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(texts)
@example(["", "a\r", "\nb", ""])
@example(["👩\u200d👩", "🇩🇪🇫", "क्ष"])
@example([])
def test_units_are_those_of_each_document_alone(documents: list[str]) -> None:
    found = document_units(documents)
    assert found.shape == (len(documents), len(UNITS))
    assert found.tolist() == [counted(text) for text in documents]


def test_planes_that_are_not_searched_hold_nothing() -> None:
    rest = "".join(map(chr, [*range(0x40000, 0xE0000), *range(0xF0000, 0x110000)]))
    properties = r"[\p{L}\p{N}\s\p{Extended_Pictographic}\p{InCB=Linker}\P{GCB=Other}]"
    assert regex.search(properties, rest) is None
    assert code_points_matching(r"\p{Nd}+")[:10].tolist() == list(range(0x30, 0x3A))


def test_no_word_and_no_grapheme_reaches_into_the_next_document() -> None:
    found = document_units(["a\r", "\nb", "c"])
    assert found[:, 2].tolist() == [2, 2, 1]
    assert found[:, 3].tolist() == [1, 1, 1]


def test_given_words_count_in_every_script() -> None:
    found = document_units(["ไปบ้าน ."], words=[["ไป", "บ้าน", "."]])
    assert dict(zip(UNITS, found[0].tolist(), strict=True))["words"] == 2
    assert found[0, UNITS.index("letters_without_blanks")] == 0


def test_graphemes_of_no_text_are_none() -> None:
    assert count_graphemes([], np.empty(0, np.uint32), np.empty(0, np.int64)).tolist() == []


@pytest.mark.parametrize(
    ("documents", "error", "said"),
    [
        (["a", "b\ud800"], ValueError, "Document 1 holds a lone surrogate"),
        ("ab", TypeError, "one string"),
        (["a", 3], TypeError, "Document 1 must be a string, got int"),
    ],
    ids=["surrogate", "string", "number"],
)
def test_what_is_no_document_is_named(
    documents: list[str], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        list(batches(documents))


def test_a_surrogate_is_named_by_its_place_in_the_whole_text() -> None:
    documents = ["x" * 600_000, "y", "\udc00"]
    with pytest.raises(ValueError, match="Document 2 holds"):
        list(batches(documents))


@pytest.mark.assets
@pytest.mark.parametrize("name", ["th_wisesight", "vi_wikipedia"])
def test_graphemes_of_real_text_are_those_of_regex(name: str, assets: Path) -> None:
    lines = (assets / "text" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[:80]
    documents = [json.loads(line)["text"] for line in lines]
    expected = [len(regex.findall(r"\X", text)) for text in documents]
    assert document_units(documents)[:, 2].tolist() == expected
