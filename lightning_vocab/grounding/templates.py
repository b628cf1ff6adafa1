"""The sentences in which a token and its description meet, in both directions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lightning_vocab.grounding.pairs import Pair

Direction = Literal["to_tokens", "to_description"]

_TO_TOKENS = (
    "The token that stands for {description} is: {tokens}",
    "{description} is written as: {tokens}",
    "Which token means {description}? It is: {tokens}",
)
_TO_DESCRIPTION = (
    "The token {tokens} stands for: {description}",
    "{tokens} means: {description}",
    "What does {tokens} mean? It means: {description}",
)
_PLACEHOLDER = re.compile(r"\{(\w*)\}")


@dataclass(frozen=True)
class Templates:
    """What is asked and answered about each pair.

    A template holds ``{tokens}`` and ``{description}`` once each. The second of the two is the
    answer, which the loss is on, and ends the template; all before it is the prompt.

    Both directions are needed. An answer of tokens teaches the rows of the head to be predicted; a
    prompt with tokens teaches the rows of the embedding to be understood. With one direction alone
    the rows of the other side get no signal (untied), or the one row that serves both is pulled by
    half of its duties (tied).

    Args:
        to_tokens: Templates with the description in the prompt and the tokens for an answer.
        to_description: Templates with the tokens in the prompt and the description for an answer.

    Raises:
        ValueError: If a direction has no template, or a template breaks these rules or stands
            there twice.

    Example:
        >>> Templates(("{description} is {tokens}",), ("{tokens} is {description}",)).filled(
        ...     "to_tokens", Pair(("<fig>",), "a sweet fruit"))
        [('a sweet fruit is ', '<fig>', 0)]
    """

    to_tokens: tuple[str, ...] = _TO_TOKENS
    to_description: tuple[str, ...] = _TO_DESCRIPTION

    def __post_init__(self) -> None:
        _check(self.to_tokens, "to_tokens", ["description", "tokens"])
        _check(self.to_description, "to_description", ["tokens", "description"])

    @classmethod
    def of(
        cls, to_tokens: Sequence[str] | None = None, to_description: Sequence[str] | None = None
    ) -> Templates:
        """The templates of two lists, the package's own where a list is None.

        Args:
            to_tokens: As above.
            to_description: As above.
        """
        return cls(
            _TO_TOKENS if to_tokens is None else tuple(to_tokens),
            _TO_DESCRIPTION if to_description is None else tuple(to_description),
        )

    def filled(self, direction: Direction, pair: Pair) -> list[tuple[str, str, int]]:
        """Each template of a direction with a pair put in.

        Args:
            direction: Which templates.
            pair: The pair.

        Returns:
            Prompt (which may end with the blank in front of the answer), answer, and the character
            of the prompt at which the tokens or the description begins.
        """
        question, answer = pair.text, pair.description
        if direction == "to_tokens":
            question, answer = answer, question
        filled = []
        for template in getattr(self, direction):
            # Cut, not replaced: a description may hold braces of its own.
            before, _, between, _, _ = _PLACEHOLDER.split(template)
            filled.append((before + question + between, answer, len(before)))
        return filled


def _check(templates: tuple[str, ...], name: str, expected: list[str]) -> None:
    if not templates:
        raise ValueError(
            f"Expected at least one template in {name}, got none: each direction teaches one side. "
            "Without to_tokens no new row learns when to be predicted, without to_description none "
            "learns what it says as a part of a prompt."
        )
    for template in templates:
        rule = (
            f"Expected {{{expected[0]}}} and then {{{expected[1]}}}, each once, in every template "
            f"of {name}; got"
        )
        if not isinstance(template, str) or _PLACEHOLDER.findall(template) != expected:
            raise ValueError(f"{rule} {template!r}.")
        if not template.endswith(f"{{{expected[1]}}}"):
            raise ValueError(f"{rule} text behind the answer, which must end it: {template!r}.")
    if len(set(templates)) < len(templates):
        raise ValueError(f"A template stands twice in {name}: {list(templates)}.")
