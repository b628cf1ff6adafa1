"""Settings that limit how many tokens can be learned, and what is said where they are too few."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class TooFewTokensError(ValueError):
    """A text gives fewer tokens than were asked for.

    Args:
        message: What limits them and what to do.
        possible: How many it gives.
    """

    def __init__(self, message: str, possible: int) -> None:
        super().__init__(message)
        self.possible = possible


def check_whole_numbers(**values: object) -> None:
    """Make sure that settings are whole numbers from 1 on.

    Args:
        values: The settings by name.

    Raises:
        TypeError: If one is of another type.
        ValueError: If one is below 1.
    """
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be a whole number, got {value!r}.")
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")


def check_switches(**values: object) -> None:
    """Make sure that settings are True or False.

    Args:
        values: The settings by name.

    Raises:
        TypeError: If one is of another type.
    """
    for name, value in values.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be a bool, got {value!r}.")


def check_share(name: str, value: object) -> None:
    """Make sure that a setting is a share.

    Args:
        name: The setting.
        value: Its value.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is not from 0 to 1.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}.")
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must be from 0 to 1, got {value}.")


def check_learning(
    num_new_tokens: object,
    min_frequency: object,
    max_token_length: object,
    character_coverage: object,
) -> None:
    """Make sure of the settings that all extenders share which learn tokens from text.

    Args:
        num_new_tokens: Number of tokens to add.
        min_frequency: Smallest number of times that a token must stand in the text.
        max_token_length: Longest new token, in characters.
        character_coverage: Share of the characters missing from the base that become tokens.

    Raises:
        TypeError: If one is of another type.
        ValueError: If one is out of range.
    """
    check_whole_numbers(
        num_new_tokens=num_new_tokens,
        min_frequency=min_frequency,
        max_token_length=max_token_length,
    )
    check_share("character_coverage", character_coverage)


def check_possible(possible: int, settings: Mapping[str, Any]) -> None:
    """Make sure that as many tokens can be learned as were asked for.

    Args:
        possible: The number that is possible.
        settings: `ContinuedBPE.arguments`.

    Raises:
        TooFewTokensError: If it is too small; the message names every setting that limits it.
    """
    wanted = settings["num_new_tokens"]
    if possible >= wanted:
        return
    names = ("min_frequency", "max_token_length", "scripts", "exclude")
    limits = [f"{name}={settings[name]}" for name in names if settings[name] is not None]
    remedies = [
        "lower num_new_tokens or min_frequency",
        "raise max_token_length or character_coverage",
    ]
    if settings["scripts"]:
        remedies.append("name more scripts")
    if settings["exclude"]:
        remedies.append("exclude less")
    if settings["protected"]:
        limits.append(f"protected text ({settings['protected']['num_characters']} characters)")
        remedies.append("protect less text")
    if settings["whole_characters_only"]:
        limits.append(
            "whole_characters_only=True (a character can need several tokens at once, so not every "
            "number is possible)"
        )
    raise TooFewTokensError(
        f"Only {possible} new tokens are possible, {wanted} were asked for. They are limited by "
        f"the text and by {', '.join(limits)}, and, where the base has byte fallback, "
        f"character_coverage={settings['character_coverage']}: {', '.join(remedies)}, or give more "
        "text.",
        possible,
    )
