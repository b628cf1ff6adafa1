"""What is context and what is target, on the ids themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from lightning_vocab.data.rows import Collate
from lightning_vocab.data.tokenise import frame_of
from lightning_vocab.grounding.pairs import Pair
from lightning_vocab.grounding.rows import grounding_rows
from lightning_vocab.grounding.templates import Templates
from lightning_vocab.vocabulary import AddTokens
from tests.conftest import case, make_tokenizer

BASE = make_tokenizer()
GROWN = AddTokens(["<a>", "<b>", "\U0001f600"]).extend(BASE).tokenizer  # ids 300, 301, 302
FRAME = frame_of(GROWN)  # <|end|>, id 0, at both ends
TEMPLATES = Templates.of(["the {description}: {tokens}"], ["the {tokens} is {description}"])
CHAT = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content | trim }}{% endfor %}"
    "{% if add_generation_prompt %}[model] {% endif %}"
)
ITEMS = st.lists(st.sampled_from(["<a>", "<b>", "\U0001f600"]), min_size=1, max_size=4)
WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(str.strip).filter(bool)


def parts(pairs: list[Pair], **options: Any) -> list[tuple[list[int], list[int]]]:
    """Context and targets of each row."""
    rows = grounding_rows(pairs, options.pop("templates", TEMPLATES), GROWN, FRAME, **options)
    found = [rows[index] for index in range(len(rows))]
    return [
        (
            row["input_ids"][: row["num_context"]].tolist(),
            row["input_ids"][row["num_context"] :].tolist(),
        )
        for row in found
    ]


def encode(text: str) -> list[int]:
    """By the base, which knows no new token."""
    ids: list[int] = BASE.encode(text, add_special_tokens=False)
    return ids


def test_only_the_answer_is_a_target_and_only_descriptions_have_an_end() -> None:
    (one, other) = parts([Pair(("<a>", "<b>"), "the cat and dog")])
    assert one == ([0, *encode("the the cat and dog: ")], [300, 301])
    # The blank in front of the answer is a part of its first token, " the".
    front = [0, *encode("the "), 300, 301, *encode(" is")]
    assert other == (front, [*encode(" the cat and dog"), 0])


def test_a_blank_that_is_a_token_of_its_own_belongs_to_the_prompt() -> None:
    (_, other) = parts([Pair(("<a>",), "cat")])
    assert BASE.tokenize(" cat") == ["\u0120", "cat"]
    assert other == ([0, *encode("the "), 300, *encode(" is ")], [*encode("cat"), 0])


def test_labels_of_a_batch_are_the_answers_alone() -> None:
    rows = grounding_rows([Pair(("<a>",), "the cat")], TEMPLATES, GROWN, FRAME)
    batch = Collate(pad_id=0)([rows[0], rows[1]])
    assert [[label for label in row if label != -100] for row in batch["labels"].tolist()] == [
        [300],
        [*encode(" the cat"), 0],
    ]


def test_rows_go_by_direction_pair_and_template() -> None:
    pairs = [Pair(("<a>",), "cat"), Pair(("<b>",), "dog")]
    templates = Templates.of(
        ["{description}: {tokens}", "{description} is {tokens}"], ["{tokens}: {description}"]
    )
    rows = grounding_rows(pairs, templates, GROWN, FRAME)
    assert [GROWN.decode(rows[index]["input_ids"]) for index in range(len(rows))] == [
        "<|end|>cat: <a>",
        "<|end|>cat is <a>",
        "<|end|>dog: <b>",
        "<|end|>dog is <b>",
        "<|end|><a>: cat<|end|>",
        "<|end|><b>: dog<|end|>",
    ]
    for direction, numbers in (("to_tokens", range(4)), ("to_description", range(4, 6))):
        some = grounding_rows(pairs, templates, GROWN, FRAME, direction=direction)  # type: ignore[arg-type]  # plain str
        assert [row["input_ids"].tolist() for row in map(some.__getitem__, range(len(some)))] == [
            rows[number]["input_ids"].tolist() for number in numbers
        ]
    with pytest.raises(IndexError):
        rows[6]


@given(pairs=st.lists(st.builds(Pair, ITEMS.map(tuple), WORDS), min_size=1, max_size=5))
def test_context_and_targets_are_prompt_and_answer_of_any_text(pairs: list[Pair]) -> None:
    found = parts(pairs)
    for pair, (context, target) in zip(pairs, found[: len(pairs)], strict=True):
        assert GROWN.decode(context) == f"<|end|>the {pair.description}: "
        assert GROWN.decode(target) == pair.text
    for pair, (context, target) in zip(pairs, found[len(pairs) :], strict=True):
        text = f"the {pair.text} is {pair.description}"
        assert [*context, *target] == [0, *GROWN.encode(text, add_special_tokens=False), 0]
        answer = f"{pair.description}<|end|>"
        assert GROWN.decode(target) in (answer, f" {answer}")
        assert GROWN.decode(target[:1]) != " "  # a blank alone belongs to the prompt


def test_more_texts_than_one_call_encodes_give_the_same_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairs = [Pair(("<a>",), "cat " * number) for number in range(1, 6)]
    whole = parts(pairs)
    monkeypatch.setattr("lightning_vocab.grounding.rows._AT_A_TIME", 2)
    assert parts(pairs) == whole


def test_a_chat_puts_the_prompt_as_the_users_message_with_one_start_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(GROWN, "chat_template", CHAT)
    (one, other) = parts([Pair(("<a>", "<b>"), "the cat")], chat=True)
    assert GROWN.decode(one[0]) == "<|end|>[user] the the cat:[model] "
    assert one[1] == [300, 301]
    assert GROWN.decode(other[0]) == "<|end|>[user] the <a><b> is[model]"
    assert other[1] == [*encode(" the cat"), 0]


def test_a_chat_is_refused_without_a_template_or_with_one_that_changes_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair = Pair(("<a>",), "cat")
    with pytest.raises(ValueError, match="a tokenizer with a chat template"):
        parts([pair], chat=True)
    monkeypatch.setattr(GROWN, "chat_template", "{{ messages[0].content | upper }}")
    with pytest.raises(ValueError, match="changes its message: 'the cat:' is not in 'THE CAT:'"):
        parts([pair], chat=True)


def test_tokens_that_are_not_read_as_themselves_are_counted_and_named() -> None:
    grown = AddTokens(["<a>", "<b>", "<a><b>", "x<a"]).extend(BASE).tokenizer
    pairs = [Pair(("<a>", "<b>"), "cat"), Pair(("<a>",), "dog"), Pair(("<b>",), "x")]
    with pytest.raises(ValueError, match=r"tokens of 1 pair are not read .*: '<a><b>'\. "):
        grounding_rows(pairs, TEMPLATES, grown, FRAME)
    glued = Templates.of(["{description}: x{tokens}"])
    with pytest.raises(ValueError, match=r"tokens of 1 pair are not read .*: '<a>'\. "):
        grounding_rows(pairs[1:], glued, grown, FRAME)


def test_a_word_that_merges_with_the_text_around_it_is_no_token_of_its_own() -> None:
    ids = {"the": BASE.convert_tokens_to_ids("the")}
    with pytest.raises(ValueError, match="not read as the new tokens that they name: 'the'"):
        parts([Pair(("the",), "cat")], token_ids=ids)


def test_tokens_without_a_row_are_counted_and_named() -> None:
    with pytest.raises(ValueError, match="2 tokens of the pairs have no new row: '<x>', '<y>'"):
        parts([Pair(("<x>", "<a>", "<y>"), "cat")])


def test_rows_that_are_too_long_are_counted_and_never_cut() -> None:
    pairs = [Pair(("<a>",), "cat"), Pair(("<b>",), "cat " * 20)]
    longest = max(len(context) + len(target) for context, target in parts(pairs))
    assert len(parts(pairs, block_size=longest)) == 4
    with pytest.raises(
        ValueError, match=f"at most {longest - 1} .* got 1 longer row of 4, .*{longest}"
    ):
        parts(pairs, block_size=longest - 1)
    with pytest.raises(ValueError, match="got 2 longer rows of 4"):
        parts(pairs, block_size=20)


def test_no_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one pair"):
        parts([])


@pytest.mark.assets
@pytest.mark.parametrize(
    "name",
    [
        case("gpt2", quick=False),
        case("llama2", quick=False),
        case("qwen2.5", quick=False),
        case("llama3", quick=False),
        case("phi3-mini", quick=False),
        case("storyllamas-4096", quick=True),
    ],
)
@pytest.mark.filterwarnings("ignore:Text around .* added tokens is decoded otherwise")
def test_emoji_of_real_tokenizers_are_answers_of_one_token_and_descriptions_come_back(
    name: str, assets: Path
) -> None:
    lines = (assets / "descriptions" / "emoji.jsonl").read_text(encoding="utf-8").splitlines()
    known = [json.loads(line) for line in lines[:1900:19]]
    # Descriptions that begin with an emoji, which is several tokens of less than a character.
    pairs = [Pair((each["token"],), each["description"]) for each in known]
    pairs += [
        Pair((known[0]["token"], known[1]["token"]), "\U0001fae8 and \u00e9t\u00e9 \U0001f984")
    ]
    base = AutoTokenizer.from_pretrained(str(assets / "tokenizers" / name))
    grown = AddTokens([each["token"] for each in known]).extend(base)
    ids, tokenizer = {t.surface: t.id for t in grown.expansion.tokens}, grown.tokenizer
    frame = frame_of(tokenizer)
    templates = Templates.of()
    rows = grounding_rows(pairs, templates, tokenizer, frame, token_ids=ids)
    assert len(rows) == 6 * len(pairs)
    for number, pair in enumerate(pair for pair in pairs for _ in range(3)):
        one, other = rows[number], rows[3 * len(pairs) + number]
        assert one["input_ids"][0] == other["input_ids"][0] == frame.start
        assert one["input_ids"][one["num_context"] :].tolist() == [ids[t] for t in pair.tokens]
        target = other["input_ids"][other["num_context"] :].tolist()
        assert target[-1] == frame.end
        assert str(tokenizer.decode(target[:-1])).strip() == pair.description
        assert not set(ids.values()) & set(target)
