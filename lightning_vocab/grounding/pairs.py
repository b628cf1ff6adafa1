"""Pairs of tokens and descriptions from a file, where every complaint names file and line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_vocab.data.lines import read_lines
from lightning_vocab.vocabulary.wording import counted, some


@dataclass(frozen=True)
class Pair:
    """One or several tokens in a row, and what they stand for.

    Args:
        tokens: The texts of the tokens; several where an item is a sequence (semantic ids).
        description: What they stand for, in words that the base understands.

    Example:
        >>> Pair(("<a_3>", "<b_17>"), "red running shoes").text
        '<a_3><b_17>'
    """

    tokens: tuple[str, ...]
    description: str

    @property
    def text(self) -> str:
        """The tokens as they stand in text, with nothing between them."""
        return "".join(self.tokens)


def read_pairs(
    path: str, token_field: str = "token", description_field: str = "description"
) -> tuple[Pair, ...]:
    """The pairs of a file in UTF-8, in its order; blank lines are passed over.

    Tokens are taken as they are written, blanks included; blanks around a description are left
    out, since templates have their own.

    Args:
        path: A ``.jsonl`` file of objects, in which the tokens are a string or a list of strings;
            or a ``.tsv`` file whose first line names the columns.
        token_field: Field or column of the token or tokens.
        description_field: Field or column of the description.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file has another suffix or is not UTF-8, a line lacks a field, holds
            something else than text in it, an empty token or half a surrogate pair, a token has no
            description, a pair stands there twice, or there is no pair.
    """
    file = Path(path).expanduser()
    if file.suffix not in _PARSERS:
        raise ValueError(f"Expected pairs in a .jsonl or .tsv file, got {path!r}.")
    if not file.is_file():
        raise FileNotFoundError(f"There is no file of pairs at {path!r} (looked in {Path.cwd()}).")
    first_line: dict[Pair, int] = {}
    bare: list[str] = []
    for number, fields in _PARSERS[file.suffix](file):
        place = f"line {number} of {file}"
        tokens = _tokens(_field(fields, token_field, "token_field", place), token_field, place)
        described = _field(fields, description_field, "description_field", place)
        description = _description(described, description_field, place)
        pair = Pair(tokens, description)
        if not description:
            bare.append(f"{pair.text} (line {number})")
        elif (first := first_line.setdefault(pair, number)) != number:
            raise ValueError(
                f"The pair {pair.text!r}: {description!r:.60} on {place} stands on line {first} "
                "already: remove one of them."
            )
    _check_found(first_line, bare, file)
    return tuple(first_line)


def _json_lines(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in read_lines(file):
        if line.isspace():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"Expected one JSON object a line; line {number} of {file} is none: {error}."
            ) from error
        if not isinstance(value, dict):
            raise ValueError(
                f"Expected one JSON object a line; line {number} of {file} is {value!r:.80}."
            )
        yield number, value


def _tab_lines(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    names: list[str] = []
    for number, line in read_lines(file):
        if line.isspace():
            continue
        columns = line.rstrip("\r\n").split("\t")
        if not names:
            names = columns
            if len(set(names)) < len(names):
                raise ValueError(f"Line {number} of {file} names a column twice: {names}.")
        elif len(columns) != len(names):
            raise ValueError(
                f"Expected {counted(len(names), 'column')} ({some(names)}) on line {number} of "
                f"{file}, got {len(columns)}."
            )
        else:
            yield number, dict(zip(names, columns, strict=True))


_PARSERS: dict[str, Callable[[Path], Iterator[tuple[int, Mapping[str, Any]]]]] = {
    ".jsonl": _json_lines,
    ".tsv": _tab_lines,
}


def _field(fields: Mapping[str, Any], name: str, option: str, place: str) -> Any:
    if name not in fields:
        found = some(fields, limit=10) or "none"
        raise ValueError(
            f"Expected the field {name!r} on {place}, which has {found}. Name the field with "
            f"{option}."
        )
    return fields[name]


def _tokens(value: Any, name: str, place: str) -> tuple[str, ...]:
    tokens = value if isinstance(value, list) else [value]
    if not tokens or not all(isinstance(token, str) for token in tokens):
        raise ValueError(
            f"Expected a token or a list of tokens in the field {name!r} on {place}, got "
            f"{value!r:.80}."
        )
    for token in tokens:
        if not token.strip():
            raise ValueError(
                f"Expected tokens in the field {name!r} on {place}, got an empty one: "
                f"{value!r:.80}."
            )
        _check_text(token, name, place)
    return tuple(tokens)


def _description(value: Any, name: str, place: str) -> str:
    """The description, empty where there is none."""
    if not isinstance(value, str | None):
        raise ValueError(f"Expected text in the field {name!r} on {place}, got {value!r:.80}.")
    _check_text(value or "", name, place)
    return (value or "").strip()


def _check_text(text: str, name: str, place: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"Expected text in the field {name!r} on {place}, got half a surrogate pair "
            f"({text[error.start]!a}) at character {error.start + 1}. Correct or remove the line."
        ) from error


def _check_found(found: Mapping[Pair, int], bare: list[str], file: Path) -> None:
    if bare:
        raise ValueError(
            f"No description for {counted(len(bare), 'token')} in {file}: {some(bare)}. A row is "
            "taught by its description alone: describe them, or remove their lines."
        )
    if not found:
        raise ValueError(f"Expected pairs of tokens and descriptions in {file}, got none.")
