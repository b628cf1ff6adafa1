from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from lightning_vocab.initializers import RowContext
from lightning_vocab.initializers.spaces import TokenVectors
from lightning_vocab.initializers.spaces.cache import SavedSpace, file_identity
from tests.initializers.contexts import make_context


class Counted(SavedSpace):
    """Says how often it was asked to compute; the vectors are those numbers."""

    def __init__(self, cache_dir: str | None, setting: int = 1) -> None:
        super().__init__(cache_dir)
        self.setting = setting
        self.calls = 0

    def identity(self, context: RowContext) -> dict[str, Any]:
        return {"setting": self.setting}

    def compute(self, context: RowContext) -> TokenVectors:
        self.calls += 1
        new, old = context.num_new, len(context.base_ids)
        knows = torch.arange(old) > 0
        vectors = torch.full((old, 2), float(self.setting))
        return TokenVectors(torch.ones(new, 2), torch.ones(new) > 0, vectors, knows)


def test_what_is_on_disk_is_not_made_again(tmp_path: Path) -> None:
    context = make_context(torch.ones(300, 2))
    first = Counted(str(tmp_path / "new" / "folder"))
    made = first.vectors(context)
    second = Counted(str(tmp_path / "new" / "folder"))
    read = second.vectors(context)
    assert (first.calls, second.calls) == (1, 0)
    for name in ("new", "knows_new", "old", "knows_old"):
        assert getattr(read, name).equal(getattr(made, name))
    assert [path.suffix for path in (tmp_path / "new" / "folder").iterdir()] == [".safetensors"]


def test_other_settings_and_other_tokens_are_other_files(tmp_path: Path) -> None:
    context = make_context(torch.ones(300, 2))
    Counted(str(tmp_path)).vectors(context)
    for space, asked in (
        (Counted(str(tmp_path), setting=2), context),
        (Counted(str(tmp_path)), context.only([0])),
        (Counted(str(tmp_path)), make_context(torch.ones(300, 2), words=["catdog"])),
        (Counted(str(tmp_path)), make_context((torch.arange(300) > 5).float().unsqueeze(1))),
    ):
        space.vectors(asked)
        assert space.calls == 1


def test_without_a_folder_nothing_is_kept() -> None:
    space = Counted(None)
    context = make_context(torch.ones(300, 2))
    space.vectors(context)
    space.vectors(context)
    assert space.calls == 2


def test_a_file_that_changed_is_another_file(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("one")
    before = file_identity(str(path))
    assert file_identity(str(path)) == before
    os.utime(path, ns=(0, 1))
    assert file_identity(str(path)) != before
