"""The JSON form of a manifest, with a schema version; its reader names the field that is wrong."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

SCHEMA_VERSION = 1
"""Layout of ``vocab_expansion.json``: a higher number whenever a field changes its meaning."""

_EXPECTED: Mapping[str, type] = {
    "base_len": int,
    "base_rows": int,
    "num_rows": int,
    "tokens": list,
    "base_fingerprint": str,
    "tokenizer_fingerprint": str,
    "extender": dict,
    "created_with": dict,
    "id": int,
    "token": str,
    "surface": str,
    "kind": str,
    "pieces": list,
}


def write_manifest(manifest: Any) -> str:
    """JSON text of a manifest dataclass, one token a line so that two manifests can be compared.

    Args:
        manifest: An instance of the manifest's dataclass; its ``tokens`` are dataclasses too.

    Raises:
        ValueError: If a value is not plain JSON (NaN is not) or holds a lone surrogate.
    """
    fields = {field.name: getattr(manifest, field.name) for field in dataclasses.fields(manifest)}
    tokens = fields.pop("tokens")
    try:
        head = json.dumps(
            {"schema_version": SCHEMA_VERSION, **_plain(fields)},
            ensure_ascii=False,
            allow_nan=False,
            indent=1,
        )
        lines = [json.dumps(vars(token), ensure_ascii=False, allow_nan=False) for token in tokens]
    except (TypeError, ValueError) as error:
        raise ValueError(f"A manifest holds plain JSON values only: {error}.") from error
    text = head[: head.rindex("\n}")] + ',\n "tokens": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        around = text[max(0, error.start - 40) : error.end]
        raise ValueError(
            f"A manifest must be Unicode text, but a lone surrogate stands in {around!r}."
        ) from error
    return text


def read_manifest(
    text: str, *, manifest: type, token: type
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The checked fields of a manifest and of its tokens, ready for the dataclasses.

    Args:
        text: JSON text that `write_manifest` wrote.
        manifest: The manifest's dataclass.
        token: The dataclass of one token.

    Raises:
        ValueError: If the text is not a JSON object, its schema version is unknown, or a field is
            missing, unknown or of the wrong type.
    """
    data = read_object(text)
    version = data.pop("schema_version", None)
    if type(version) is not int or version != SCHEMA_VERSION:
        raise ValueError(
            f"The manifest has schema_version {version!r}; this version of lightning-vocab reads "
            f"{SCHEMA_VERSION}. Build the expansion again, or use the version that wrote it."
        )
    _check_fields(data, _names(manifest), "the manifest")
    _check_strings(data["created_with"])
    tokens: list[dict[str, Any]] = []
    for index, item in enumerate(data.pop("tokens")):
        where = f"tokens[{index}]"
        if not isinstance(item, dict):
            raise ValueError(f"{where} must be a JSON object, got {type(item).__name__}.")
        _check_fields(item, _names(token), where)
        if any(type(piece) is not int for piece in item["pieces"]):
            raise ValueError(f"Field 'pieces' of {where} must hold integers: {item['pieces']}.")
        tokens.append({**item, "pieces": tuple(item["pieces"])})
    return data, tokens


def read_object(text: str) -> dict[str, Any]:
    """The JSON object that a manifest is, its fields not checked yet.

    Args:
        text: JSON text.

    Raises:
        ValueError: If the text is not a JSON object.
    """
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:  # the latter: nested without end
        raise ValueError(f"The manifest is not JSON: {error}.") from error
    if not isinstance(data, dict):
        raise ValueError(f"The manifest must be a JSON object, got {type(data).__name__}.")
    return data


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings as dicts, which is what `json` writes."""
    return {
        name: dict(value) if isinstance(value, Mapping) else value for name, value in fields.items()
    }


def _names(dataclass: type) -> list[str]:
    return [field.name for field in dataclasses.fields(dataclass)]


def _check_fields(data: Mapping[str, Any], names: Iterable[str], where: str) -> None:
    expected = set(names)
    if missing := sorted(expected - data.keys()):
        raise ValueError(f"Fields are missing from {where}: {', '.join(missing)}.")
    if unknown := sorted(data.keys() - expected):
        raise ValueError(f"Unknown fields in {where}: {', '.join(unknown)}.")
    for name, value in data.items():
        # `bool` is an `int` to isinstance, so the type itself is compared.
        if type(value) is not _EXPECTED[name]:
            raise ValueError(
                f"Field {name!r} of {where} must be {_EXPECTED[name].__name__}, got "
                f"{type(value).__name__}: "
                f"{str(value)[:80]!r}."
            )


def _check_strings(versions: Mapping[str, Any]) -> None:
    for name, value in versions.items():
        if type(value) is not str:
            raise ValueError(f"Field 'created_with' must map to strings, got {name!r}: {value!r}.")
