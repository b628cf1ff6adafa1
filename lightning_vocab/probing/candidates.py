"""Initializers by name or as JSON, read and tried before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pydoc import locate
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

import lightning_vocab.initializers as initializers
import lightning_vocab.initializers.spaces as spaces
from lightning_vocab.initializers import Initializer

DEFAULTS = (
    "SubwordMean",
    "Mean",
    "ConvexHull",
    "Multivariate",
    '{"class_path": "FOCUS", "init_args": {"fallback": "SubwordMean"}}',
)
"""Methods that need nothing from outside, the simple ones first."""


@dataclass(frozen=True)
class Candidate:
    """An initializer that can be made again and again.

    Args:
        label: What it is called in tables; no two candidates have one.
        value: ``class_path`` and, where not the defaults, ``init_args``: plain values.
    """

    label: str
    value: dict[str, Any]

    def namespace(self) -> Namespace:
        """The value with all defaults, as parsers hold it."""
        parsed: Namespace = _parsed(json.dumps(self.value)).initializer
        return parsed


def read_candidates(
    words: Sequence[str] = DEFAULTS, own: Mapping[str, Any] | None = None
) -> list[Candidate]:
    """Candidates in their order, each made once to see that it can be.

    Args:
        words: Names of classes, with their module where they are not this package's, or JSON
            objects with ``class_path`` and ``init_args``.
        own: The recipe's initializer, put in front unless it is among them.

    Raises:
        ValueError: If there is no such class, it does not take such arguments, or fewer than two
            candidates are left.

    Example:
        >>> word = '{"class_path": "Mean", "init_args": {"noise": 0.1}}'
        >>> [each.label for each in read_candidates([word, "Mean", "Mean"])]
        ['Mean(noise=0.1)', 'Mean', 'Mean (2)']
    """
    values = [_value(word) for word in words]
    if own is not None and (value := _value(json.dumps(own))) not in values:
        values.insert(0, value)
    if len(values) < 2:
        raise ValueError(
            "Expected at least two initializers to compare, got "
            f"{', '.join(map(_label, values)) or 'none'}."
        )
    candidates: list[Candidate] = []
    for value in values:
        label = _label(value)
        before = sum(_label(each.value) == label for each in candidates)
        candidates.append(Candidate(f"{label} ({before + 1})" if before else label, value))
    return candidates


def _value(word: str) -> dict[str, Any]:
    """What a word says, with full names of classes and without arguments that are defaults."""
    parsed = _parsed(word)
    try:
        _parser().instantiate_classes(parsed)
    except (OSError, ImportError, ValueError) as error:
        raise ValueError(f"The initializer {word} cannot be made: {error}") from error
    value: dict[str, Any] = _without_defaults(yaml.safe_load(_parser().dump(parsed))["initializer"])
    return value


def _without_defaults(value: Any) -> Any:
    """A value, and values inside it, without the arguments that say what the class says anyway."""
    if not isinstance(value, Mapping) or "class_path" not in value:
        return value
    kind: Any = locate(value["class_path"])
    known = signature(kind).parameters
    given = {name: _without_defaults(each) for name, each in value.get("init_args", {}).items()}
    kept = {name: each for name, each in given.items() if each != known[name].default}
    return {"class_path": _path(kind, value), **({"init_args": kept} if kept else {})}


def _path(kind: type, value: Mapping[str, Any]) -> str:
    """Where a class is: of the several paths of one of this package's always the same."""
    for home in (initializers, spaces):
        if getattr(home, kind.__name__, None) is kind:
            return f"{home.__name__}.{kind.__name__}"
    return str(value["class_path"])


def _parsed(word: str) -> Namespace:
    try:
        return _parser().parse_args([f"--initializer={word}"])
    except ArgumentError as error:
        raise ValueError(f"{word!r} names no initializer: {error}") from error


def _parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Initializer, "initializer", required=True)
    return parser


def _label(value: Any) -> str:
    """``Class(argument=value)``, without modules."""
    if isinstance(value, str) or not isinstance(value, Mapping) or "class_path" not in value:
        return str(value)
    name = str(value["class_path"]).rpartition(".")[2]
    given = ", ".join(f"{key}={_label(each)}" for key, each in value.get("init_args", {}).items())
    return f"{name}({given})" if given else name
