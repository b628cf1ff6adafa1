from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightning_vocab.initializers.word_pairs import Dictionary, Side, folded, read_dictionary

PAIRS = [
    ("apple", "แอปเปิ้ล"),
    ("fruit", " แอปเปิ้ล "),
    ("EU", "eu"),
    ("Big", "ใหญ่"),
    ("apple", "แอปเปิ้ล"),
]


def write(folder: Path, pairs: list[tuple[str, str]], suffix: str) -> str:
    path = folder / f"pairs{suffix}"
    lines = [json.dumps(pair) if suffix == ".jsonl" else "\t".join(pair) for pair in pairs]
    path.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("suffix", [".tsv", ".jsonl"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_word_has_the_translations_of_all_its_pairs(
    suffix: str, side: Side, tmp_path: Path
) -> None:
    pairs = PAIRS if side == "right" else [(new, base) for base, new in PAIRS]
    found = read_dictionary(write(tmp_path, pairs, suffix), new_side=side)
    words = {"แอปเปิ้ล": ("apple", "fruit"), "ใหญ่": ("Big",)}
    assert found == Dictionary(words, num_pairs=5, num_equal=1)


def test_case_is_folded_only_where_it_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, [("dog", "HUND"), ("street", "Straße"), ("EU", "eu")], ".tsv")
    assert set(read_dictionary(path).translations) == {"hund", "strasse"}
    exact = read_dictionary(path, fold_case=False)
    assert set(exact.translations) == {"HUND", "Straße", "eu"}
    assert exact.num_equal == 0


def test_composed_and_decomposed_letters_are_the_same() -> None:
    assert folded("e\u0301t\u00c9", fold_case=True) == "\u00e9t\u00e9"
    assert folded(" e\u0301T", fold_case=False) == "\u00e9T"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("pairs.csv", "a,b", r"in a \.tsv or \.jsonl file"),
        ("pairs.tsv", "a\tb\na b\n", r"two words on line 2 of .*\['a b'\]"),
        ("pairs.tsv", "a\tb\tc\n", "two words on line 1"),
        ("pairs.tsv", "a\t \n", "two words on line 1"),
        ("pairs.jsonl", '["a", "b"]\n{"a": "b"}\n', "two words on line 2"),
        ("pairs.jsonl", '["a", 1]\n', "two words on line 1"),
        ("pairs.jsonl", "[a\n", "JSON array of two words on line 1"),
        ("pairs.tsv", "\n", r"got 0 pairs, of which 0"),
        ("pairs.tsv", "EU\teu\nbit\tbit\n", r"got 2 pairs, of which 2 have the same word"),
    ],
)
def test_what_is_no_dictionary_is_refused(
    name: str, text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_dictionary(tmp_path / name)


def test_a_missing_dictionary_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no dictionary at .*gone\.tsv"):
        read_dictionary(tmp_path / "gone.tsv")
