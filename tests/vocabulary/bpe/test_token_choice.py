"""Which tokens the user lets continued training make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from transformers import PreTrainedTokenizerFast

from lightning_vocab.vocabulary import (
    ContinuedBPE,
    ContinuedUnigram,
    ExpandedTokenizer,
    load_tokenizer,
)
from lightning_vocab.vocabulary.fingerprint import backend
from lightning_vocab.vocabulary.limits import TooFewTokensError
from tests.conftest import make_tokenizer
from tests.vocabulary.conftest import make_fallback_tokenizer, texts_of

PROPERTY = settings(deadline=None, derandomize=True)
CORPORA = st.lists(st.text("abก้é😀😁 1", min_size=8, max_size=60), min_size=2, max_size=5)


def merges_of(grown: ExpandedTokenizer) -> list[tuple[str, str]]:
    """The new merges, by rank."""
    merges = json.loads(backend(grown.tokenizer).to_str())["model"]["merges"]
    new = {token.token for token in grown.expansion.tokens}
    return [(left, right) for left, right in merges if left + right in new]


def is_part(grown: ExpandedTokenizer, token: str) -> bool:
    """Whether a byte-level token alone decodes to something that is no whole text."""
    decoded = backend(grown.tokenizer).decode([grown.tokenizer.get_vocab()[token]])
    return "\ufffd" in decoded


def built_from(token: str, merges: dict[str, tuple[str, str]]) -> set[str]:
    """A token and all new tokens in it."""
    if token not in merges:
        return set()
    left, right = merges[token]
    return {token} | built_from(left, merges) | built_from(right, merges)


def everything(texts: list[str]) -> ExpandedTokenizer | None:
    """The growth by as many tokens as the texts give, at most 60."""
    extender = ContinuedBPE(60, min_frequency=1)
    try:
        return extender.extend(make_tokenizer(), texts)
    except TooFewTokensError as error:
        if not error.possible:
            return None
        return ContinuedBPE(error.possible, min_frequency=1).extend(make_tokenizer(), texts)


@PROPERTY
@given(texts=CORPORA, number=st.integers(1, 12))
def test_parts_of_characters_are_kept_only_on_the_way_to_whole_tokens(
    texts: list[str], number: int
) -> None:
    extender = ContinuedBPE(number, min_frequency=1, whole_characters_only=True)
    try:
        grown = extender.extend(make_tokenizer(), texts)
    except TooFewTokensError:
        reject()
    merges = {left + right: (left, right) for left, right in merges_of(grown)}
    assert len(grown.expansion.tokens) == len(merges) == number
    whole = [token for token in merges if not is_part(grown, token)]
    assert set().union(*(built_from(token, merges) for token in whole)) == set(merges)
    parts = [token for token in merges if is_part(grown, token)]
    assert grown.expansion.extender["report"] == {
        "num_parts_of_characters": len(parts),
        "parts_of_characters": parts,
    }


@pytest.mark.slow
@PROPERTY
@given(texts=CORPORA, number=st.integers(1, 12))
def test_whole_tokens_are_the_first_of_unrestricted_training(texts: list[str], number: int) -> None:
    free = everything(texts)
    assume(free is not None)
    assert free is not None
    order = merges_of(free)
    merges = {left + right: (left, right) for left, right in order}
    closure: set[str] = set()
    for token in merges:
        if len(closure) < number and not is_part(free, token):
            closure |= built_from(token, merges)
    assume(len(closure) == number and len(order) < 60)
    extender = ContinuedBPE(number, min_frequency=1, whole_characters_only=True)
    grown = extender.extend(make_tokenizer(), texts)
    assert merges_of(grown) == [pair for pair in order if "".join(pair) in closure]


@PROPERTY
@given(texts=CORPORA, number=st.integers(1, 12), probe=st.text("abก้é😀😁 1x", max_size=40))
def test_no_text_gets_more_tokens_under_any_choice(
    texts: list[str], number: int, probe: str
) -> None:
    base = make_tokenizer()
    extender = ContinuedBPE(
        number, min_frequency=1, whole_characters_only=True, exclude=["b", "^ ", r"\d"]
    )
    try:
        grown = extender.extend(base, texts)
    except TooFewTokensError:
        reject()
    assert not any(
        "b" in token.surface or token.surface.startswith(" ") for token in grown.expansion.tokens
    )
    for text in (*texts, probe):
        old, new = base.encode(text), grown.tokenizer.encode(text)
        assert len(new) <= len(old)
        assert grown.tokenizer.decode(new) == base.decode(old) == text
    model = backend(grown.tokenizer).model
    found = [[piece.id for piece in model.tokenize(t.token)] for t in grown.expansion.tokens]
    assert found == [[token.id] for token in grown.expansion.tokens]


def test_a_character_brings_the_parts_on_its_way(tokenizer: PreTrainedTokenizerFast) -> None:
    # Four bytes take three merges; all of them count.
    extender = ContinuedBPE(3, whole_characters_only=True)
    grown = extender.extend(tokenizer, ["😀"] * 9)
    assert [token.surface for token in grown.expansion.tokens][-1] == "😀"
    assert grown.expansion.extender["report"]["num_parts_of_characters"] == 2


def test_a_character_without_room_is_passed_over(tokenizer: PreTrainedTokenizerFast) -> None:
    extender = ContinuedBPE(2, whole_characters_only=True)
    grown = extender.extend(tokenizer, ["😀"] * 9 + ["xyz"] * 3)
    assert [token.surface for token in grown.expansion.tokens] == ["xy", "xyz"]
    assert grown.expansion.extender["report"]["parts_of_characters"] == []


def test_too_little_room_for_the_only_character_is_said(tokenizer: PreTrainedTokenizerFast) -> None:
    extender = ContinuedBPE(2, whole_characters_only=True)
    with pytest.raises(ValueError, match=r"Only 0 new tokens .*\(a character can need several"):
        extender.extend(tokenizer, ["😀"] * 9)


def test_base_with_byte_fallback_has_no_parts_to_leave_out(
    fallback_tokenizer: PreTrainedTokenizerFast,
) -> None:
    texts = ["กข กข กข ก", "กขข", "the thin"] * 3
    free = ContinuedBPE(6).extend(fallback_tokenizer, texts)
    whole = ContinuedBPE(6, whole_characters_only=True).extend(fallback_tokenizer, texts)
    assert whole.expansion.tokens == free.expansion.tokens
    assert whole.expansion.extender["report"]["num_parts_of_characters"] == 0


def test_excluded_tokens_are_left_out_with_what_would_be_built_on_them(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    texts = ["xyz"] * 9 + ["vwk"] * 3
    grown = ContinuedBPE(2, exclude=["^xy$"]).extend(tokenizer, texts)
    assert [token.surface for token in grown.expansion.tokens] == ["vw", "vwk"]
    assert grown.expansion.extender["report"] == {
        "num_left_out_by_exclude": 1,
        "left_out_by_exclude": ["xy"],
    }


def test_exclude_sees_the_leading_blank(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = ["q q q"] * 9 + ["vw"] * 3
    grown = ContinuedBPE(1, exclude=[r"^\s"]).extend(tokenizer, texts)
    assert [token.surface for token in grown.expansion.tokens] == ["vw"]


def test_excluded_characters_stay_in_byte_tokens(
    fallback_tokenizer: PreTrainedTokenizerFast,
) -> None:
    grown = ContinuedBPE(1, exclude=["ก"]).extend(fallback_tokenizer, ["กกก", "ขข"])
    assert [token.surface for token in grown.expansion.tokens] == ["ข"]
    assert grown.expansion.extender["report"]["left_out_by_exclude"] == ["ก"]
    assert grown.tokenizer.tokenize("ก")[1:] == ["<0xE0>", "<0xB8>", "<0x81>"]


@pytest.mark.parametrize("make", [make_tokenizer, make_fallback_tokenizer])
def test_no_token_holds_a_digit_if_digits_are_excluded(make: Any) -> None:
    texts = ["abc 10 2024 x9 v2 abz", "2024 qwz 2025 zq"] * 5
    grown = ContinuedBPE(8, exclude=[r"\d"]).extend(make(), texts)
    assert len(grown.expansion.tokens) == 8
    assert not any(char.isdigit() for token in grown.expansion.tokens for char in token.surface)


def test_too_few_tokens_name_the_choice(tokenizer: PreTrainedTokenizerFast) -> None:
    extender = ContinuedBPE(9, exclude=["z"], protected=["xy"], whole_characters_only=True)
    expected = r"exclude=\['z'\], protected text \(2 characters\), whole_.*exclude less, protect le"
    with pytest.raises(ValueError, match=expected):
        extender.extend(tokenizer, ["xyz vw"] * 5)


@pytest.mark.parametrize(
    ("value", "error", "reason"),
    [
        (r"\d", TypeError, "Expected a list of patterns in exclude"),
        ([], ValueError, "empty list"),
        ([r"\d", 7], TypeError, "Pattern 1 of exclude must be a string, got 7"),
        (["a", "(b"], ValueError, r"Pattern 1 of exclude, '\(b', is no regular expression: "),
        ([""], ValueError, "Pattern 0 of exclude, '', is blank"),
        ([" "], ValueError, "is blank"),
        (["a*"], ValueError, "matches the empty text, so it would exclude every token"),
        ([r"\b"], ValueError, "matches the empty text inside every word"),
        (["(?=.)"], ValueError, "matches the empty text inside every word"),
        (["a\0"], ValueError, "holds NUL or a lone surrogate"),
        (["\ud800"], ValueError, "holds NUL or a lone surrogate"),
    ],
)
def test_patterns_that_say_nothing_are_refused_by_name(
    value: Any, error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        ContinuedBPE(1, exclude=value)


@pytest.mark.parametrize("pattern", [r"^(?=\w)", r"(?<=\w)(?=\d)", "(?=z)", r"\bz"])
def test_patterns_that_look_around_are_taken_where_they_leave_words(pattern: str) -> None:
    assert ContinuedBPE(1, exclude=[pattern]).exclude == (pattern,)


@pytest.mark.parametrize("extender", [ContinuedBPE, ContinuedUnigram])
def test_progress_must_be_a_bool_or_none(extender: type[ContinuedBPE | ContinuedUnigram]) -> None:
    progress: Any = "yes"
    with pytest.raises(TypeError, match="progress must be True, False or None, got 'yes'"):
        extender(1, progress=progress)


def test_whole_characters_only_must_be_a_bool() -> None:
    value: Any = "yes"
    with pytest.raises(TypeError, match="whole_characters_only must be a bool, got 'yes'"):
        ContinuedBPE(1, whole_characters_only=value)


def test_choice_is_part_of_the_description(tokenizer: PreTrainedTokenizerFast) -> None:
    extender = ContinuedBPE(2, exclude=["z"], whole_characters_only=True)
    expansion = extender.extend(tokenizer, ["vwk"] * 3).expansion
    again = type(expansion).from_json(expansion.to_json())
    assert ContinuedBPE(2, exclude=["z"], whole_characters_only=True).has_built(again)
    assert not ContinuedBPE(2, exclude=["x"], whole_characters_only=True).has_built(again)
    assert not ContinuedBPE(2, exclude=["z"]).has_built(again)


def test_command_line_reads_the_choice() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ContinuedBPE, "extender")
    given = {
        "num_new_tokens": 3,
        "whole_characters_only": True,
        "exclude": [r"\d", "^ "],
        "protected": ["x = 1"],
        "protected_files": ["code.txt"],
    }
    extender = parser.instantiate_classes(parser.parse_object({"extender": given})).extender
    assert extender.exclude == (r"\d", "^ ")
    assert (extender.protected.texts, extender.protected.files) == (("x = 1",), ("code.txt",))


@pytest.mark.slow
@pytest.mark.assets
@pytest.mark.parametrize("name", ["gpt2", "qwen2.5"])
def test_real_thai_growth_keeps_only_needed_parts(name: str, assets: Path) -> None:
    base = load_tokenizer(assets / "tokenizers" / name)
    texts = texts_of(assets / "text/th_wisesight.jsonl", 3000)
    grown = ContinuedBPE(500, whole_characters_only=True).extend(base, texts)
    parts = [token.token for token in grown.expansion.tokens if "\ufffd" in token.surface]
    assert len(grown.expansion.tokens) == 500
    assert parts
    report = grown.expansion.extender["report"]
    assert (report["num_parts_of_characters"], report["parts_of_characters"]) == (len(parts), parts)
    merges = {left + right: (left, right) for left, right in merges_of(grown)}
    whole = [token for token in merges if token not in parts]
    assert set().union(*(built_from(token, merges) for token in whole)) == set(merges)
