"""From a function to a command: its signature gives the arguments, its docstring their help."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from inspect import Parameter, signature
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from docstring_parser import parse
from jsonargparse import ArgumentParser


def run_command(command: Callable[..., int | None], args: Sequence[str], prog: str) -> int:
    """Run a function with arguments from the command line.

    A parameter without a default is given by its place, the others as ``--name``. A parameter that
    is a list of strings takes several words. What the user gave wrong (a ValueError, a missing or
    an existing file) is said in a line, without a traceback.

    Args:
        command: The function; every parameter is annotated and documented.
        args: The words behind the command's name.
        prog: How the command was called, for the help.

    Returns:
        The exit status: what the function returned, 0 for None, 2 for an error of the user.
    """
    parser = _parser(command, prog)
    arguments = parser.parse_args(list(args))
    try:
        arguments = parser.instantiate_classes(arguments)
        return command(**vars(arguments)) or 0
    except (ValueError, OSError) as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        return 2


def _parser(command: Callable[..., int | None], prog: str) -> ArgumentParser:
    documented = parse(command.__doc__ or "")
    lines = [documented.short_description, documented.long_description]
    parser = ArgumentParser(prog=prog, description="\n\n".join(filter(None, lines)))
    helps = {parameter.arg_name: parameter.description for parameter in documented.params}
    hints = get_type_hints(command)
    handled: set[str | int] = set()
    for name, parameter in signature(command).parameters.items():
        is_required, is_list = parameter.default is Parameter.empty, _is_list(hints[name])
        if is_required or is_list:
            options: dict[str, Any] = {"nargs": "+"} if is_list else {}
            if not is_required:
                options["default"] = parameter.default
            flag = name if is_required else f"--{name}"
            parser.add_argument(
                flag, type=str if is_list else hints[name], help=helps[name], **options
            )
            handled.add(name)
    parser.add_function_arguments(command, as_group=False, skip=handled)
    return parser


def _is_list(hint: Any) -> bool:
    """Whether a parameter is a list of strings, or such a list or None."""
    kinds = [each for each in get_args(hint) if each is not NoneType]
    return get_origin(hint) is list or any(get_origin(each) is list for each in kinds)
