"""Tensors of a stored model, read by name from its safetensors files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers.utils.hub import cached_file

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class StoredTensors:
    """The tensors of a model by name; one is read when it is asked for.

    Of a hub id, only the files that hold what is asked for are fetched.

    Args:
        base: A Hugging Face folder or a hub id.
    """

    def __init__(self, base: str | os.PathLike[str]) -> None:
        folder = Path(base).expanduser()
        self.base = str(folder) if folder.is_dir() else str(base)

    def path(self, file: str) -> Path | None:
        """Where a file lies, or None if there is none.

        Args:
            file: Its name.
        """
        found = cached_file(self.base, file, _raise_exceptions_for_missing_entries=False)
        return None if found is None else Path(found)

    @cached_property
    def files(self) -> dict[str, str]:
        """The name of each tensor's file; empty where there are no safetensors files.

        Raises:
            ValueError: If a file is cut short.
        """
        if (index := self.path(INDEX)) is not None:
            weight_map: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            return weight_map
        single = self.path(SINGLE)
        if single is None:
            return {}
        with _opened(single) as file:
            return dict.fromkeys(file.keys(), SINGLE)

    def find(self, name: str) -> str | None:
        """The stored name of a parameter: files may leave a prefix out (GPT-2) or hold one more.

        Args:
            name: Its name in the model.

        Raises:
            ValueError: If several tensors could be it.
        """
        if name in self.files:
            return name
        near = [
            each for each in self.files if name.endswith(f".{each}") or each.endswith(f".{name}")
        ]
        if len(near) > 1:
            raise ValueError(f"Several tensors could be {name!r}: {sorted(near)[:5]}.")
        return near[0] if near else None

    def read(self, name: str) -> Tensor | None:
        """One tensor, in the type of its file, or None if it is not stored.

        Args:
            name: Its name in the model, or its stored name.

        Raises:
            FileNotFoundError: If the file that the index names is missing.
            ValueError: If its file is cut short, or several tensors could be it.
        """
        found = self.find(name)
        if found is None:
            return None
        file = self.files[found]
        path = self.path(file)
        if path is None:
            raise FileNotFoundError(
                f"{self.base!r} lacks {file!r}, which its index says holds {found!r}."
            )
        with _opened(path) as opened:
            tensor: Tensor = opened.get_tensor(found)
        return tensor


def name_in(model: nn.Module, part: nn.Module, name: str) -> str:
    """Name of a submodule's tensor in the model.

    Args:
        model: A model; its values do not matter.
        part: A submodule of it.
        name: Name of the tensor in the submodule.

    Raises:
        ValueError: If the part is none of the model's.
    """
    # The modules, unlike the parameters, name both of a tied pair.
    for path, held in model.named_modules():
        if held is part:
            return f"{path}.{name}"
    raise ValueError(f"Expected a submodule of {type(model).__name__}, got {type(part).__name__}.")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file; one that is cut short, which its header tells, is named."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(
            f"'{path}' is no whole safetensors file: {error}. Was its download or copy cut short?"
        ) from error
