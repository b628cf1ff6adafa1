from __future__ import annotations

from pathlib import Path

import pytest

from lightning_vocab.grounding.pairs import Pair, read_pairs


def written(folder: Path, text: str | bytes, name: str = "pairs.jsonl") -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_json_lines_give_tokens_sequences_and_several_descriptions_of_one_token(
    tmp_path: Path,
) -> None:
    lines = (
        '\ufeff{"token": "<fig>", "description": " a sweet fruit ", "group": 3}\r\n'
        "\n"
        '{"token": ["<a_1>", "<b_2>"], "description": "red shoes"}\n'
        '{"token": "<fig>", "description": "what Adam wore"}'
    )
    assert read_pairs(written(tmp_path, lines)) == (
        Pair(("<fig>",), "a sweet fruit"),
        Pair(("<a_1>", "<b_2>"), "red shoes"),
        Pair(("<fig>",), "what Adam wore"),
    )


def test_tab_separated_columns_are_found_by_name(tmp_path: Path) -> None:
    lines = (
        "about\tnumber\titem\na fruit\t1\t<fig>\r\n \t\t\nune cl\u00e9\u2028verte\t2\t\U0001f600\n"
    )
    path = written(tmp_path, lines, "pairs.tsv")
    assert read_pairs(path, token_field="item", description_field="about") == (
        Pair(("<fig>",), "a fruit"),
        Pair(("\U0001f600",), "une cl\u00e9\u2028verte"),
    )


GOOD = '{"token": "<a>", "description": "one"}\n'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 of .*pairs.jsonl is none"),
        ("[1]", r"line 2 of .* is \[1\]"),
        ('{"token": "<b>"}', "'description' on line 2 of .*, which has 'token'.*description_field"),
        ('{"description": "b"}', "'token' on line 2 of .*, which has 'description'.*token_field"),
        ('{"token": " ", "description": "b"}', "line 2 of .*an empty one"),
        ('{"token": ["<b>", ""], "description": "b"}', "line 2 of .*an empty one"),
        ('{"token": [], "description": "b"}', "a token or a list of tokens .* on line 2"),
        ('{"token": 7, "description": "b"}', "a token or a list of tokens .* on line 2"),
        ('{"token": "<b>", "description": 7}', "Expected text .* on line 2"),
        ('{"token": "\\ud83d", "description": "b"}', "line 2 of .*half a surrogate pair"),
        ('{"token": "<b>", "description": "x\\ud83d"}', "line 2 of .*character 2"),
        (GOOD.strip(), "'<a>': 'one' on line 2 of .* stands on line 1 already"),
    ],
)
def test_what_is_wrong_with_a_line_is_said_with_file_and_line(
    tmp_path: Path, line: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_pairs(written(tmp_path, GOOD + line))


def test_tokens_without_a_description_are_counted_and_named(tmp_path: Path) -> None:
    bare = '{"token": "<b>", "description": null}\n{"token": ["<c>", "<d>"], "description": " "}\n'
    message = r"No description for 2 tokens in .*'<b> \(line 2\)', '<c><d> \(line 3\)'"
    with pytest.raises(ValueError, match=message):
        read_pairs(written(tmp_path, GOOD + bare))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("pairs.csv", "a,b", r"\.jsonl or \.tsv file, got '.*pairs\.csv'"),
        ("pairs.jsonl", "\n \n", "Expected pairs .*, got none"),
        ("pairs.tsv", "token\tdescription\n", "Expected pairs .*, got none"),
        ("pairs.tsv", "token\tdescription\n<a>\tb\tc\n", "2 columns .* on line 2 of .*, got 3"),
        ("pairs.tsv", "token\ttoken\n<a>\tb\n", "Line 1 of .* names a column twice"),
        ("pairs.tsv", "token\tdescription\n<a>\t\n", "No description for 1 token"),
        ("pairs.jsonl", b'{"token": "\xff"}', "is not UTF-8: line 1"),
    ],
)
def test_files_that_hold_no_pairs_are_refused(
    tmp_path: Path, name: str, text: str | bytes, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_pairs(written(tmp_path, text, name))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"no file of pairs at 'nowhere\.jsonl'"):
        read_pairs("nowhere.jsonl")
