from __future__ import annotations

import pytest

from lightning_vocab.grounding.pairs import Pair
from lightning_vocab.grounding.templates import Templates

PAIR = Pair(("<a>", "<b>"), "what {tokens} says")


def test_a_template_is_filled_once_and_cut_in_front_of_its_answer() -> None:
    templates = Templates.of(["So {description}: {tokens}"], ["Of {tokens}, {description}"])
    assert templates.filled("to_tokens", PAIR) == [("So what {tokens} says: ", "<a><b>", 3)]
    assert templates.filled("to_description", PAIR) == [("Of <a><b>, ", "what {tokens} says", 3)]


def test_three_templates_of_each_direction_stand_ready() -> None:
    templates = Templates.of()
    assert len(templates.to_tokens) == len(templates.to_description) == 3
    for direction, half in (("to_tokens", PAIR.description), ("to_description", PAIR.text)):
        for prompt, _, place in templates.filled(direction, PAIR):  # type: ignore[arg-type]  # plain str
            assert prompt[place : place + len(half)] == half


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{tokens}", r"\{description\} and then \{tokens\}, each once.*got '\{tokens\}'"),
        ("{tokens} {description}", "and then"),
        ("{description} {description} {tokens}", "each once"),
        ("{description} {title} {tokens}", "each once"),
        ("{description} {tokens}.", "text behind the answer, which must end it"),
        ("", "each once"),
    ],
)
def test_a_template_that_breaks_the_rules_is_refused(template: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Templates.of([template])


def test_each_direction_is_needed_and_the_error_says_why() -> None:
    with pytest.raises(ValueError, match="no new row learns when to be predicted"):
        Templates.of(to_tokens=[])
    with pytest.raises(ValueError, match="none learns what it says as a part of a prompt"):
        Templates.of(to_description=[])


def test_a_template_that_stands_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="stands twice in to_tokens"):
        Templates.of(["{description} {tokens}"] * 2)
