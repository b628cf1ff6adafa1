"""A tokenizer that grew elsewhere is described, or refused with the promise that it breaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import GPT2Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lightning_vocab.vocabulary import ContinuedBPE, describe_expansion, fingerprint
from lightning_vocab.vocabulary.fingerprint import backend

Edit = Callable[[dict[str, Any]], object]


def grown_by(base: PreTrainedTokenizerBase, edit: Edit) -> PreTrainedTokenizerFast:
    """The base with its JSON edited."""
    data = json.loads(backend(base).to_str())
    edit(data)
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(data)),
        bos_token="<|end|>",
        eos_token="<|end|>",
    )


def with_xy(data: dict[str, Any]) -> None:
    data["model"]["vocab"]["xy"] = 300
    data["model"]["merges"].append(["x", "y"])


def added(i: int, content: str) -> dict[str, Any]:
    flags = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
    return {"id": i, "content": content, **flags, "special": True}


def test_a_tokenizer_grown_by_hand_is_described(tokenizer: PreTrainedTokenizerFast) -> None:
    grown = grown_by(tokenizer, with_xy)
    expansion = describe_expansion(
        tokenizer, grown, base_rows=310, extender={"by": "hand"}
    ).expansion
    (token,) = expansion.tokens
    assert (token.id, token.token, token.surface, token.kind) == (300, "xy", "xy", "text")
    assert list(token.pieces) == tokenizer.encode("xy")
    assert (expansion.base_len, expansion.base_rows, expansion.num_rows) == (300, 310, 310)
    assert expansion.base_fingerprint == fingerprint(tokenizer)
    assert expansion.tokenizer_fingerprint == fingerprint(grown)
    assert expansion.extender == {"by": "hand"}


def test_growing_and_describing_give_the_same_manifest(tokenizer: PreTrainedTokenizerFast) -> None:
    extender = ContinuedBPE(6)
    made = extender.extend(tokenizer, ["déjà vu déjà vu, ที่ ที่"])
    described = describe_expansion(tokenizer, made.tokenizer, extender=extender.description())
    assert described.expansion == made.expansion


def test_a_token_that_ends_inside_a_character_shows_it(tokenizer: PreTrainedTokenizerFast) -> None:
    (token,) = ContinuedBPE(1).extend(tokenizer, ["กข"]).expansion.tokens
    assert (token.token, token.surface) == ("à¸", "\ufffd")


def test_a_named_slot_may_change(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.add_tokens(["<|reserved|>"], special_tokens=True)

    def rename(data: dict[str, Any]) -> None:
        data["added_tokens"][-1]["content"] = "<|tool|>"

    grown = grown_by(tokenizer, rename)
    (token,) = describe_expansion(tokenizer, grown, kinds={300: "slot"}).expansion.tokens
    assert (token.id, token.kind, token.surface) == (300, "slot", "<|tool|>")
    with pytest.raises(ValueError, match="took ids of the base"):
        describe_expansion(tokenizer, grown)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda data: None, "has no token that its base"),
        (lambda data: data["model"]["vocab"].update(xy=300), "can never be produced"),
        (lambda data: data.update(normalizer={"type": "NFKC"}), "normalizer .* differs"),
        (lambda data: data["pre_tokenizer"].update(use_regex=False), "pre_tokenizer .* differs"),
        (lambda data: data["decoder"].update(type="Fuse"), "decoder .* differs"),
        (lambda data: data["model"].update(ignore_merges=True), "model .* differs"),
        (lambda data: data["model"]["merges"].reverse(), "merges of the base must come first"),
        (lambda data: data["model"]["merges"].pop(0), "merges of the base must come first"),
        (lambda data: data["model"]["vocab"].update(a=301), "have another id .* such as 'a'"),
        (
            lambda data: data["added_tokens"].append(added(data["model"]["vocab"]["a"], "a")),
            "Added tokens of the base changed, such as 'a'",
        ),
        (
            lambda data: data["added_tokens"][0].update(lstrip=True),
            r"Added tokens of the base changed, such as '<\|end\|>'",
        ),
    ],
    ids=[
        "nothing-new",
        "dead",
        "normalizer",
        "pre-tokenizer",
        "decoder",
        "model-flag",
        "merge-order",
        "merge-missing",
        "id-moved",
        "became-added",
        "added-changed",
    ],
)
def test_a_broken_promise_is_named(
    edit: Edit, message: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    def grow(data: dict[str, Any]) -> None:
        if message[:3] not in ("has", "can"):
            with_xy(data)
        edit(data)

    with pytest.raises(ValueError, match=message):
        describe_expansion(tokenizer, grown_by(tokenizer, grow))


def test_dead_tokens_are_found_although_ignore_merges_hides_them(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    base = grown_by(tokenizer, lambda data: data["model"].update(ignore_merges=True))
    grown = grown_by(base, lambda data: data["model"]["vocab"].update(xy=300))
    assert grown.tokenize("xy") == ["xy"]
    with pytest.raises(ValueError, match=r"1 new tokens can never be produced .* such as 'xy'"):
        describe_expansion(base, grown)
    assert grown.tokenize("xy") == ["xy"]


def test_another_chat_template_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    grown = grown_by(tokenizer, with_xy)
    grown.chat_template = "{{ messages }}"
    with pytest.raises(ValueError, match="The chat template of the grown tokenizer differs"):
        describe_expansion(tokenizer, grown)


def test_another_special_token_map_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    grown = grown_by(tokenizer, with_xy)
    grown.pad_token = "<|end|>"
    with pytest.raises(ValueError, match="The special-token map of the grown tokenizer differs"):
        describe_expansion(tokenizer, grown)


def test_another_class_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="The class of the grown tokenizer differs"):
        describe_expansion(tokenizer, GPT2Tokenizer(vocab={"a": 0, "xy": 300}, merges=[]))


def test_kinds_of_old_ids_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    grown = grown_by(tokenizer, with_xy)
    with pytest.raises(ValueError, match=r"ids that are not new: \[5\]"):
        describe_expansion(tokenizer, grown, kinds={5: "slot"})


def test_too_few_base_rows_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="base_rows=12 is too small"):
        describe_expansion(tokenizer, grown_by(tokenizer, with_xy), base_rows=12)
