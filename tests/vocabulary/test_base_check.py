"""A manifest is compared with what its two tokenizers give."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from lightning_vocab.vocabulary import (
    AddTokens,
    ExpandedTokenizer,
    NewToken,
    TokenKind,
    check_base,
    describe_expansion,
    is_grown_base,
)
from tests.conftest import make_tokenizer
from tests.vocabulary.test_describe import grown_by, with_xy


@pytest.fixture
def expanded(tokenizer: PreTrainedTokenizerFast) -> ExpandedTokenizer:
    return AddTokens(["<a>", "<b>", "<c>"]).extend(tokenizer, base_rows=310)


def edited(expanded: ExpandedTokenizer, **changes: Any) -> ExpandedTokenizer:
    return replace(expanded, expansion=replace(expanded.expansion, **changes))


def with_old_token(
    expanded: ExpandedTokenizer, tokenizer: PreTrainedTokenizerFast, kind: TokenKind
) -> ExpandedTokenizer:
    """The manifest with the base's token 97 listed as new."""
    old = NewToken(97, str(tokenizer.convert_ids_to_tokens(97)), "x", kind, pieces=(96,))
    return edited(expanded, tokens=(old, *expanded.expansion.tokens))


def test_an_expansion_fits_its_base_alone(
    expanded: ExpandedTokenizer, tokenizer: PreTrainedTokenizerFast
) -> None:
    check_base(expanded, tokenizer)
    with pytest.raises(ValueError, match=r"another base tokenizer: .*300 tokens.*290 tokens"):
        check_base(expanded, make_tokenizer(290))


def test_a_base_that_has_grown_already_fits(
    expanded: ExpandedTokenizer, tokenizer: PreTrainedTokenizerFast
) -> None:
    check_base(expanded, expanded.tokenizer)
    assert is_grown_base(expanded, expanded.tokenizer)
    assert not is_grown_base(expanded, tokenizer)


def test_a_renamed_slot_fits(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.add_tokens(["<|reserved|>"], special_tokens=True)
    grown = grown_by(tokenizer, lambda data: data["added_tokens"][-1].update(content="<|tool|>"))
    check_base(describe_expansion(tokenizer, grown, kinds={300: "slot"}), tokenizer)


def test_a_missing_token_is_named(
    expanded: ExpandedTokenizer, tokenizer: PreTrainedTokenizerFast
) -> None:
    first, _, last = expanded.expansion.tokens
    with pytest.raises(ValueError, match=r"lacks 1 new tokens, such as 301 \('<b>'\)"):
        check_base(edited(expanded, tokens=(first, last)), tokenizer)


def test_a_token_of_the_base_is_named(
    expanded: ExpandedTokenizer, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(ValueError, match=r"lists 1 tokens that the base has already, such as 97"):
        check_base(with_old_token(expanded, tokenizer, "text"), tokenizer)


def test_a_slot_that_did_not_change_is_refused(
    expanded: ExpandedTokenizer, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(ValueError, match=r"does not fit its base.* ids that are not new: \[97\]"):
        check_base(with_old_token(expanded, tokenizer, "slot"), tokenizer)


@pytest.mark.parametrize(
    ("name", "value"), [("pieces", (1, 1, 1)), ("surface", "<A>"), ("kind", "text")]
)
def test_a_wrong_field_of_a_token_is_named(
    name: str, value: Any, expanded: ExpandedTokenizer, tokenizer: PreTrainedTokenizerFast
) -> None:
    first, *rest = expanded.expansion.tokens
    changes: dict[str, Any] = {name: value}
    wrong = edited(expanded, tokens=(replace(first, **changes), *rest))
    with pytest.raises(ValueError, match=rf"token 300 \('<a>'\) expected {name} .*got .*describe"):
        check_base(wrong, tokenizer)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_len": 7}, "expected base_len=300, got 7"),
        ({"num_rows": 400}, "expected num_rows=310, got 400"),
        ({"base_len": 280, "base_rows": 299}, "base_rows=299 is too small"),
    ],
)
def test_wrong_counts_are_named(
    changes: dict[str, int],
    message: str,
    expanded: ExpandedTokenizer,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(ValueError, match=message):
        check_base(edited(expanded, **changes), tokenizer)


def test_a_grown_tokenizer_that_breaks_a_guarantee_is_refused(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    made = describe_expansion(tokenizer, grown_by(tokenizer, with_xy))
    dead = grown_by(tokenizer, lambda data: data["model"]["vocab"].update(xy=300))
    with pytest.raises(ValueError, match=r"does not fit its base.* can never be produced"):
        check_base(ExpandedTokenizer(dead, made.expansion), tokenizer)
