from __future__ import annotations

import pytest

from lightning_vocab.commands import COMMANDS, find_command
from lightning_vocab.commands.frame import run_command

SEEN: list[object] = []


def shout(words: list[str], times: int = 1, tags: list[str] | None = None) -> int | None:
    """Say words.

    Loudly.

    Args:
        words: What is said.
        times: How often it is said.
        tags: What it is about.
    """
    if times < 0:
        raise ValueError("less than nothing")
    SEEN.append((words, times, tags))
    return 1 if times == 0 else None


def test_lists_take_several_words_by_place_and_by_name() -> None:
    SEEN.clear()
    assert run_command(shout, ["a", "b", "--tags", "x", "y", "--times", "2"], "shout") == 0
    assert run_command(shout, ["a"], "shout") == 0
    assert SEEN == [(["a", "b"], 2, ["x", "y"]), (["a"], 1, None)]


def test_status_of_the_function_is_the_exit_status() -> None:
    assert run_command(shout, ["a", "--times=0"], "shout") == 1


def test_an_error_of_the_user_is_a_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(shout, ["a", "--times=-1"], "shout") == 2
    assert capsys.readouterr().err == "shout: error: less than nothing\n"


def test_help_is_the_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        run_command(shout, ["--help"], "shout")
    said = capsys.readouterr().out
    for words in ("Say words.", "Loudly.", "What is said.", "How often", "What it is about."):
        assert words in said


@pytest.mark.parametrize("name", ["check", "export", "fertility", "grow", "plan", "probe", "slots"])
def test_every_command_has_a_function_of_its_name_whose_help_explains_each_argument(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert name in COMMANDS
    with pytest.raises(SystemExit, match="0"):
        run_command(find_command(name), ["--help"], name)
    assert "--" in capsys.readouterr().out
