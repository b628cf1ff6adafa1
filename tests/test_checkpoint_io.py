from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.io import AsyncCheckpointIO

from lightning_vocab.checkpoint_io import (
    WholeFileCheckpointIO,
    checkpoint_to_resume,
    find_damage,
    newest_checkpoint,
    write_whole_checkpoints,
)
from lightning_vocab.cli import main
from tests.test_cli import arguments, folder

__all__ = ["folder"]  # a fixture: a working folder with texts
QUIET: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False}


def write(path: Path, value: float = 0.0, age: int = 0) -> Path:
    """A checkpoint that was written ``age`` seconds before the others."""
    content = {"value": torch.full((1000,), value), "lr_schedulers": []}
    WholeFileCheckpointIO().save_checkpoint(content, path)
    os.utime(path, (1_000_000 - age, 1_000_000 - age))
    return path


def cut(path: Path) -> Path:
    os.truncate(path, path.stat().st_size // 2)
    return path


def damage(path: Path) -> Path:
    """Turn a bit in the middle, which `torch.load` does not see."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    torch.load(path, weights_only=True)
    return path


def test_what_was_saved_is_loaded_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = write(tmp_path / "runs" / "a.ckpt", 2.5)
    loaded = WholeFileCheckpointIO().load_checkpoint(path, weights_only=True)
    assert torch.equal(loaded["value"], torch.full((1000,), 2.5))
    assert [each.name for each in path.parent.iterdir()] == ["a.ckpt"]


@pytest.mark.parametrize(("harm", "message"), [(cut, "end before"), (damage, "is damaged")])
def test_a_broken_checkpoint_is_refused_with_the_remedy(
    harm: Any, message: str, tmp_path: Path
) -> None:
    path = harm(write(tmp_path / "a.ckpt"))
    with pytest.raises(ValueError, match=rf"{message}.*--ckpt_path last"):
        WholeFileCheckpointIO().load_checkpoint(path)


def test_a_missing_checkpoint_and_an_empty_one_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        WholeFileCheckpointIO().load_checkpoint(tmp_path / "none.ckpt")
    (tmp_path / "empty.ckpt").touch()
    assert find_damage(tmp_path / "empty.ckpt") is not None


@pytest.mark.filterwarnings("ignore:.* is passed over")
def test_the_newest_whole_checkpoint_is_found_whatever_stands_beside_it(tmp_path: Path) -> None:
    assert newest_checkpoint([tmp_path, tmp_path / "none"]) is None
    cut(write(tmp_path / "last.ckpt"))
    damage(write(tmp_path / "step=9.ckpt", age=1))
    write(tmp_path / "step=3.ckpt", age=9)
    expected = write(tmp_path / "step=6.ckpt", age=5)
    (tmp_path / "last-v1.ckpt").symlink_to(tmp_path / "removed.ckpt")
    os.utime(cut(tmp_path / "last.ckpt"), (2_000_000, 2_000_000))
    os.utime(tmp_path / "step=9.ckpt", (2_000_000, 2_000_000))
    assert newest_checkpoint([tmp_path]) == expected


@pytest.mark.filterwarnings("ignore:.*is passed over, it is no whole checkpoint")
def test_a_file_whose_list_of_parts_is_damaged_is_passed_over(tmp_path: Path) -> None:
    expected = write(tmp_path / "whole.ckpt", age=5)
    file = write(tmp_path / "last.ckpt")
    content = file.read_bytes()
    start = content.index(b"PK\x01\x02")
    for place in range(start, len(content), 7):  # each reader's error has a class of its own
        file.write_bytes(content[:place] + bytes([content[place] ^ 0x81]) + content[place + 1 :])
        assert newest_checkpoint([tmp_path]) in (expected, file)


def test_a_checkpoint_of_weights_alone_is_passed_over(tmp_path: Path) -> None:
    expected = write(tmp_path / "step=2.ckpt", age=5)
    torch.save({"state_dict": {}}, tmp_path / "weights.ckpt")
    with pytest.warns(UserWarning, match=r"weights.ckpt is passed over, .* weights alone"):
        assert newest_checkpoint([tmp_path]) == expected


def test_a_folder_of_a_divided_run_is_a_checkpoint_and_another_is_none(tmp_path: Path) -> None:
    for name in ("step=4.ckpt", "other.ckpt"):
        (tmp_path / name).mkdir()
    torch.save({"lr_schedulers": []}, tmp_path / "step=4.ckpt" / "meta.pt")
    write(tmp_path / "step=2.ckpt", age=5)
    assert newest_checkpoint([tmp_path]) == tmp_path / "step=4.ckpt"
    with pytest.raises(ValueError, match="as ModelParallelStrategy writes it"):
        WholeFileCheckpointIO().load_checkpoint(tmp_path / "step=4.ckpt")


def test_former_starts_of_a_run_are_seen_through_the_logger(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, "log")
    trainer = Trainer(callbacks=[ModelCheckpoint()], **(QUIET | {"logger": logger}))
    assert checkpoint_to_resume(trainer) is None
    for version, age in ((0, 5), (1, 1)):
        write(tmp_path / "log" / f"version_{version}" / "checkpoints" / "a.ckpt", age=age)
    found = checkpoint_to_resume(trainer)
    assert found == tmp_path / "log" / "version_1" / "checkpoints" / "a.ckpt"


def test_a_run_killed_while_it_wrote_its_last_checkpoint_leaves_no_half_one(tmp_path: Path) -> None:
    trainer = Trainer(callbacks=[ModelCheckpoint(tmp_path)], **QUIET)
    whole, half = write(tmp_path / "step=9.ckpt"), tmp_path / ".last.ckpt.0a1b2c3d.partial"
    half.mkdir()
    for name in ("lock", "new"):
        (half / name).touch()
    assert checkpoint_to_resume(trainer) == whole
    assert list(tmp_path.iterdir()) == [whole]


def test_checkpoints_on_another_machine_are_not_searched() -> None:
    trainer = Trainer(callbacks=[ModelCheckpoint("memory://bucket/run")], **QUIET)
    with pytest.raises(ValueError, match="instead of 'last'"):
        checkpoint_to_resume(trainer)


def test_a_plugin_of_the_users_own_stays() -> None:
    for own, expected in ((None, WholeFileCheckpointIO), (AsyncCheckpointIO(), AsyncCheckpointIO)):
        trainer = Trainer(plugins=own, **QUIET)
        write_whole_checkpoints(trainer)
        assert type(trainer.strategy.checkpoint_io) is expected


@pytest.mark.slow
def test_one_command_begins_a_run_and_goes_on_with_it(tied_folder: str, folder: Path) -> None:
    saving = {"class_path": "ModelCheckpoint", "init_args": {"dirpath": "kept", "save_last": True}}
    command = ["fit", *arguments(tied_folder, trainer__max_steps=2), "--ckpt_path=last"]
    command += [f"--trainer.callbacks={[saving]}", "--trainer.default_root_dir=."]
    main(command)
    cut(folder / "kept" / "last.ckpt")
    with pytest.warns(UserWarning, match="last.ckpt is passed over"):
        main([*command, "--trainer.max_steps=4"])
    newest = newest_checkpoint([folder / "kept"])
    assert newest is not None
    assert torch.load(newest, weights_only=True)["global_step"] == 4
    shutil.rmtree(folder / "kept")
    with pytest.raises(FileNotFoundError, match="validate --ckpt_path last"):
        main(["validate", *command[1:]])
