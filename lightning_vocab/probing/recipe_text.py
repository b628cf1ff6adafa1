"""Another initializer in the text of a recipe; everything else stays as it stands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, SequenceNode

_KEY = "initializer"
_NEEDS_PLAIN = (
    "The recipe's initializer cannot be replaced without a change elsewhere: write it out, without "
    "anchors, aliases and tags."
)


def with_initializer(text: str, value: Mapping[str, Any], remarks: list[str]) -> str:
    r"""The text of a recipe with another ``model.initializer`` and remarks in front.

    Comments, order, blank lines and spelling of everything else stay. What stood inside the former
    initializer, comments included, goes with it.

    Args:
        text: The recipe, in YAML.
        value: ``class_path`` and ``init_args``, plain values.
        remarks: Lines to stand in front as comments.

    Raises:
        ValueError: If the recipe has no mapping ``model``, is JSON, or has an initializer that is
            an alias, or one that an alias refers to.

    Example:
        >>> text = "model:\n  base: demo  # small\n  initializer: Mean\n"
        >>> made = with_initializer(text, {"class_path": "a.Normal"}, ["Chosen by a probe."])
        >>> print(made, end="")
        # Chosen by a probe.
        model:
          base: demo  # small
          initializer: {class_path: a.Normal}
    """
    root = _composed(text)
    model = _value_of(root, "model")
    if not isinstance(model, MappingNode):
        raise ValueError(
            "Expected a mapping `model` in the recipe, got none: write it out, as `model:` and "
            "lines such as `  base: demo` below it."
        )
    dotted = [key.value for key, _ in root.value if key.value.startswith("model.")]
    dotted += [key.value for key, _ in model.value if key.value.startswith(f"{_KEY}.")]
    if dotted:
        raise ValueError(f"Expected {dotted} of the recipe as mappings below `model:`.")
    newline = "\r\n" if "\r\n" in text else "\n"
    start, stop, written = _change(text, model, dict(value), newline)
    front = "".join(f"# {line}{newline}" for line in remarks)
    changed = front + text[:start] + written + text[stop:]
    _check_same(text, changed, value)
    return changed


def _composed(text: str) -> MappingNode:
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"The recipe is no YAML that can be edited: {error}") from error
    if not isinstance(root, MappingNode) or root.flow_style:
        raise ValueError(
            "Expected a recipe in YAML whose keys stand on lines of their own, to which remarks "
            "can be added: got JSON, or no mapping."
        )
    return root


def _change(
    text: str, model: MappingNode, value: dict[str, Any], newline: str
) -> tuple[int, int, str]:
    """Where the text changes, and what stands there then."""
    for key, old in model.value:
        if key.value == _KEY:
            return _replacement(text, key, old, value, newline)
    if model.flow_style:
        start = model.start_mark.index + text[model.start_mark.index :].index("{") + 1
        comma = ", " if model.value else ""
        return start, start, f"{_KEY}: {_flow(value)}{comma}"
    first = model.value[0][0].start_mark
    margin = newline + " " * first.column
    return first.index, first.index, f"{_KEY}:{margin}  {_block(value, margin + '  ')}{margin}"


def _replacement(
    text: str, key: Node, old: Node, value: dict[str, Any], newline: str
) -> tuple[int, int, str]:
    """An old value and what takes its place; a mapping on lines of its own becomes another."""
    start = old.start_mark.index
    if start == old.end_mark.index:  # `initializer:` alone, whose mark may stand lines below
        start = key.end_mark.index + text[key.end_mark.index :].index(":") + 1
        return start, start, f" {_flow(value)}"
    if start < key.end_mark.index or text[start] in "&!":
        raise ValueError(_NEEDS_PLAIN)
    is_block = isinstance(old, MappingNode) and not old.flow_style
    margin = newline + " " * old.start_mark.column
    return start, _end(text, old), _block(value, margin) if is_block else _flow(value)


def _end(text: str, node: Node) -> int:
    """Where the last sign of a node is; the mark of a block stands behind blanks and comments."""
    if isinstance(node, MappingNode | SequenceNode) and not node.flow_style:
        last = node.value[-1]
        key, value = last if isinstance(last, tuple) else (None, last)
        if key is not None and value.start_mark.index == value.end_mark.index:
            return _end(text, key) + 1  # a key and its colon
        return _end(text, value)
    start, stop = node.start_mark.index, node.end_mark.index
    return int(start + len(text[start:stop].rstrip()))


def _block(value: dict[str, Any], margin: str) -> str:
    """A value on lines of its own, of which all but the first begin with ``margin``."""
    style = None if "init_args" in value else False
    return margin.join(_dumped(value, style).splitlines())


def _flow(value: dict[str, Any]) -> str:
    """A value on one line."""
    return _dumped(value, True)


def _dumped(value: dict[str, Any], style: bool | None) -> str:
    dumped = yaml.safe_dump(
        value, default_flow_style=style, sort_keys=False, allow_unicode=True, width=math.inf
    )
    return str(dumped).rstrip()


def _value_of(mapping: MappingNode, name: str) -> Node | None:
    return next((value for key, value in mapping.value if key.value == name), None)


def _check_same(before: str, after: str, value: Mapping[str, Any]) -> None:
    """Make sure that nothing but the initializer has changed its meaning."""
    try:
        old, new = yaml.safe_load(before), yaml.safe_load(after)
    except yaml.YAMLError as error:
        raise ValueError(_NEEDS_PLAIN) from error
    made = new["model"].pop(_KEY)
    old["model"].pop(_KEY, None)
    if made != dict(value) or old != new:
        raise ValueError(_NEEDS_PLAIN)
