from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lightning_vocab.vocabulary import NewToken, VocabularyExpansion

TOKENS = (
    NewToken(10, "ab", "ab", "text", (1, 2)),
    NewToken(11, "à¸", "\ufffd", "text", (3, 4)),
    NewToken(14, "<|tool|>", "<|tool|>", "special", (5,)),
)
EXPANSION = VocabularyExpansion(
    base_len=10,
    base_rows=12,
    num_rows=15,
    tokens=TOKENS,
    base_fingerprint="base",
    tokenizer_fingerprint="grown",
    extender={"class": "AddTokens", "args": {"tokens": ["ก"], "special": False}},
    created_with={"tokenizers": "0.22"},
)


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    data = json.loads(EXPANSION.to_json())
    change(data)
    return json.dumps(data)


def test_json_round_trip_gives_an_equal_manifest() -> None:
    assert VocabularyExpansion.from_json(EXPANSION.to_json()) == EXPANSION


def test_json_is_plain_and_versioned() -> None:
    data = json.loads(EXPANSION.to_json())
    assert data["schema_version"] == 1
    assert data["tokens"][1] == {
        "id": 11,
        "token": "à¸",
        "surface": "\ufffd",
        "kind": "text",
        "pieces": [3, 4],
    }


def test_new_ids_are_the_ids_of_the_tokens() -> None:
    assert EXPANSION.new_ids == (10, 11, 14)


@pytest.mark.parametrize("version", [0, 2, "1", None, True, 1.0])
def test_another_schema_version_is_refused(version: object) -> None:
    text = changed(lambda data: data.update(schema_version=version))
    with pytest.raises(ValueError, match=f"schema_version {version!r}; .* reads 1"):
        VocabularyExpansion.from_json(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("num_rows"), "missing from the manifest: num_rows"),
        (lambda data: data.update(rows=1), "Unknown fields in the manifest: rows"),
        (
            lambda data: data.update(base_len="10"),
            "'base_len' of the manifest must be int, got str",
        ),
        (lambda data: data.update(base_len=True), "'base_len' of the manifest must be int"),
        (lambda data: data.update(tokens={}), "'tokens' of the manifest must be list, got dict"),
        (lambda data: data.update(extender=None), "'extender' of the manifest must be dict"),
        (lambda data: data["tokens"].append(3), r"tokens\[3\] must be a JSON object, got int"),
        (lambda data: data["tokens"][1].pop("kind"), r"missing from tokens\[1\]: kind"),
        (lambda data: data["tokens"][0].update(x=1), r"Unknown fields in tokens\[0\]: x"),
        (lambda data: data["tokens"][2].update(id=1.5), r"'id' of tokens\[2\] must be int"),
        (lambda data: data["tokens"][2].update(pieces=["1"]), r"'pieces' of tokens\[2\]"),
        (lambda data: data["created_with"].update(torch=2), "'created_with' must map to strings"),
    ],
)
def test_a_wrong_field_is_named(change: Callable[[dict[str, Any]], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VocabularyExpansion.from_json(changed(change))


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is not JSON"), ("[]", "JSON object, got list")]
)
def test_other_content_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VocabularyExpansion.from_json(text)


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object()])
def test_values_that_are_no_plain_json_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="plain JSON values only"):
        replace(EXPANSION, extender={"args": value}).to_json()


def test_a_lone_surrogate_is_refused() -> None:
    token = NewToken(10, "ab", "\ud800", "text", (1,))
    with pytest.raises(ValueError, match="lone surrogate"):
        replace(EXPANSION, tokens=(token,)).to_json()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, "a", "a", "text", (1,)), "must not be negative, got -1"),
        ((10, "", "a", "text", (1,)), "New token 10 has an empty string"),
        ((10, "a", "a", "word", (1,)), "kind 'word': expected one of text, special, slot"),
        ((10, "a", "a", "text", ()), r"got pieces \(\)"),
        ((10, "a", "a", "text", (10,)), r"never its own: got pieces \(10,\)"),
        ((10, "a", "a", "text", (-1,)), r"got pieces \(-1,\)"),
    ],
)
def test_a_token_that_cannot_be_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NewToken(*arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": ()}, "at least one new token"),
        ({"base_len": 0}, "base_len=0"),
        ({"base_rows": 9}, "base_rows=9"),
        ({"num_rows": 11}, "num_rows=11"),
        ({"num_rows": 14}, "New token 14 has no row"),
        ({"tokens": TOKENS[1::-1]}, "got 10 after 11"),
        ({"tokens": (TOKENS[0], TOKENS[0])}, "got 10 after 10"),
        ({"tokens": (TOKENS[0], replace(TOKENS[1], token="ab"))}, "spelled alike"),
        ({"tokens": (TOKENS[0], replace(TOKENS[1], pieces=(10,)))}, "must be base ids below 12"),
        (
            {"tokens": (replace(TOKENS[0], pieces=(12,)),)},
            r"must be base ids below 12, got \(12,\)",
        ),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(EXPANSION, **changes)


def test_a_slot_may_lie_among_the_old_ids() -> None:
    slot = NewToken(6, "<|slot|>", "<|slot|>", "slot", (1, 2))
    assert replace(EXPANSION, tokens=(slot, *TOKENS[:2])).new_ids == (6, 10, 11)
