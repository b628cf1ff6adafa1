"""`lightning-vocab export` of what is no checkpoint; tests/test_cli.py exports a real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_vocab.commands.export import export


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no checkpoint .*none\.ckpt"):
        export(str(tmp_path / "none.ckpt"), str(tmp_path / "out"))


def test_a_folder_is_no_checkpoint_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is a folder: .* add ExportHuggingFace"):
        export(str(tmp_path), str(tmp_path / "out"))


@pytest.mark.parametrize("content", [b"", b"tokens\nof a list\n", b"PK\x03\x04 cut short"])
def test_a_file_of_another_kind_is_no_checkpoint(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match="is no checkpoint that fit wrote"):
        export(str(tmp_path / "a.ckpt"), str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("saved", "lacking"),
    [
        ({"a": 1}, "pytorch-lightning_version"),
        ({"pytorch-lightning_version": "2.5", "state_dict": {}}, "hyper_parameters"),
        (torch.zeros(3), "pytorch-lightning_version"),
        (Path("/"), "Weights only load failed"),  # a class that is not loaded from a file
    ],
)
def test_a_saved_value_that_is_no_run_is_no_checkpoint(
    saved: Any, lacking: str, tmp_path: Path
) -> None:
    torch.save(saved, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=f"is no checkpoint that fit wrote: .*{lacking}"):
        export(str(tmp_path / "a.ckpt"), str(tmp_path / "out"))
