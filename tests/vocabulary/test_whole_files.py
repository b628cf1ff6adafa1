from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_vocab.vocabulary.whole_files import (
    remove_leftovers,
    whole_file,
    whole_folder,
    write_whole,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def killed(write: Callable[[], None]) -> None:
    """Run ``write`` in a process of its own, which kills itself somewhere in it."""
    process = multiprocessing.get_context("fork").Process(target=write)
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_writer_leaves_the_former_file_and_the_next_one_clears_up(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text("former")

    def write() -> None:
        with whole_file(file) as fresh:
            fresh.write_text("ha")
            die()

    killed(write)
    assert file.read_text() == "former"
    assert len(names(tmp_path)) == 2
    with whole_file(file) as fresh:
        fresh.write_text("whole")
    assert file.read_text() == "whole"
    assert names(tmp_path) == ["report.json"]


def test_what_a_living_writer_fills_is_left_alone(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    begun = context.Event()

    def write() -> None:
        with whole_file(tmp_path / "a.ckpt") as fresh:
            fresh.write_text("more to come")
            begun.set()
            signal.pause()

    process = context.Process(target=write)
    process.start()
    assert begun.wait(30)
    before = names(tmp_path)
    assert len(before) == 1
    assert remove_leftovers(tmp_path) == []
    with whole_file(tmp_path / "a.ckpt") as fresh:  # a second writer to the same place
        fresh.write_text("mine")
    assert names(tmp_path) == [*before, "a.ckpt"]
    process.kill()
    process.join()
    assert remove_leftovers(tmp_path, ".txt") == []
    assert remove_leftovers(tmp_path, ".ckpt") == ["a.ckpt"]
    assert names(tmp_path) == ["a.ckpt"]


def test_a_writer_killed_between_the_two_renames_loses_no_folder(tmp_path: Path) -> None:
    target = tmp_path / "export"
    target.mkdir()
    (target / "config.json").write_text("former")

    def write() -> None:
        rename = Path.rename

        def rename_and_die(self: Path, to: Path) -> None:
            rename(self, to)
            die()

        Path.rename = rename_and_die  # type: ignore[assignment,method-assign]  # in a fork
        with whole_folder(target) as fresh:
            (fresh / "config.json").write_text("new")

    killed(write)
    assert not target.exists()
    assert remove_leftovers(tmp_path) == ["export"]
    assert (target / "config.json").read_text() == "former"
    assert names(tmp_path) == ["export"]


def test_all_bytes_reach_the_disk_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, Path.replace

    def noted_sync(opened: int) -> None:
        done.append(f"sync {Path(os.readlink(f'/proc/self/fd/{opened}')).name}")
        sync(opened)

    def noted_replace(self: Path, target: Path) -> Path:
        done.append(f"{self.name} becomes {target.name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_replace)

    def write(place: Path) -> None:
        place.mkdir()
        (place / "rows").write_text("rows")

    write_whole(tmp_path / "cache", write)
    assert done == ["sync rows", "sync new", "new becomes cache", f"sync {tmp_path.name}"]


def test_a_former_folder_that_is_being_removed_is_never_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        with whole_folder(tmp_path / "export") as fresh:
            (fresh / "config.json").touch()
        monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # killed before it is done
    (tmp_path / "export").rename(tmp_path / "elsewhere")
    remove_leftovers(tmp_path)
    assert not (tmp_path / "export").exists()


def test_names_that_only_look_like_leftovers_are_kept(tmp_path: Path) -> None:
    kept = [".notes.partial", "a.12345678.partial", ".a.1234567.partial"]
    for name in kept:
        (tmp_path / name).mkdir()
    (tmp_path / ".file.12345678.partial").touch()  # our own are folders
    assert remove_leftovers(tmp_path) == []
    assert names(tmp_path) == sorted([*kept, ".file.12345678.partial"])


def test_an_error_leaves_the_former_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("former")

    def write() -> None:
        with whole_file(file) as fresh:
            fresh.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert file.read_text() == "former"
    assert names(tmp_path) == ["a.txt"]
