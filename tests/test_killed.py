"""A run that is killed with SIGKILL, again and again, ends as one that was left alone."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from lightning_vocab.callbacks import ExpansionReport
from lightning_vocab.checkpoint_io import find_damage
from lightning_vocab.rows import export
from tests.callbacks.modules import is_same
from tests.killed_runs import EVERY, STEPS, Aim, Run, dies_half_way, dies_in

pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)

# Each kills one start of one run, in this order; calls are counted from the start.
AIMS: dict[str, Aim] = {
    "half a checkpoint": dies_half_way(2),
    "a checkpoint before its rename": dies_in(os, "fsync", 1),
    "a checkpoint after its rename": dies_in(Path, "replace", 1, after=True),
    "the removal of the former checkpoint": dies_in(os, "remove", 1),
    "the report": dies_in(ExpansionReport, "on_train_end", 1),
    "half an export": dies_in(export, "write_beside", 1),
    "an export in its place": dies_in(Path, "replace", 2, after=True),
    "the swap of a former export": dies_in(Path, "rename", 1, after=True),
    "the removal of the former export": dies_in(Path, "rename", 2, after=True),
}


@pytest.fixture(scope="module")
def alone(tied_folder: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, float]:
    """A run that was left alone, and its seconds."""
    run = Run.make(tmp_path_factory.mktemp("alone") / "run", tied_folder)
    began = time.monotonic()
    process = run.start()
    process.join()
    assert process.exitcode == 0, (run.folder / "output.txt").read_text()[-3000:]
    return run, time.monotonic() - began


def kill_and_note(run: Run, number: int, moment: str, started: int) -> str:
    """One line on a kill, once it has left nothing that could be mistaken for a whole file."""
    reached = max((step for _, step, _ in run.diary()[started:]), default=0)
    whole = {path.name: find_damage(path) for path in (run.folder / "checkpoints").glob("*.ckpt")}
    assert set(whole.values()) <= {None}, whole
    left = sorted(str(path.relative_to(run.folder)) for path in run.folder.rglob(".*.partial"))
    note = f"{number:2}  {moment}: step {reached}, has {sorted(whole)}, leaves {left}"
    print(note)
    return note


def resumed_from(run: Run, started: int) -> str:
    steps = [step for what, step, _ in run.diary()[started:] if what == "start"]
    return f"resumed from step {steps[0]}" if steps else "trains nothing"


def check_end(run: Run, alone: Run) -> None:
    """All that the run leaves is what the run that was left alone has left, bit for bit."""
    ends = [torch.load(each.folder / "end.pt", weights_only=True) for each in (run, alone)]
    assert is_same(*ends)
    assert run.losses() == alone.losses()
    for name in ("export/model.safetensors", "export/tokenizer.json", "report.json"):
        assert (run.folder / name).read_bytes() == (alone.folder / name).read_bytes(), name
    AutoModelForCausalLM.from_pretrained(run.folder / "export")
    assert list(run.folder.rglob(".*.partial")) == []
    # At most the steps since the last checkpoint are made again.
    reached = 0
    for what, step, _ in run.diary():
        if what == "start":
            assert step >= (reached - 1) // EVERY * EVERY
        reached = step


@pytest.mark.slow
def test_a_run_that_is_killed_while_it_writes_ends_as_one_left_alone(
    alone: tuple[Run, float], tied_folder: str, tmp_path: Path
) -> None:
    run = Run.make(tmp_path / "run", tied_folder)
    for number, name in enumerate(AIMS, 1):
        started = len(run.diary())
        process = run.start(AIMS[name])
        process.join()
        assert process.exitcode == -signal.SIGKILL, (run.folder / "output.txt").read_text()[-3000:]
        kill_and_note(run, number, f"{name} ({resumed_from(run, started)})", started)
    process = run.start()
    process.join()
    assert process.exitcode == 0, (run.folder / "output.txt").read_text()[-3000:]
    check_end(run, alone[0])


@pytest.mark.slow
def test_runs_that_are_killed_20_times_at_random_moments_end_as_one_left_alone(
    alone: tuple[Run, float], tied_folder: str, tmp_path: Path
) -> None:
    draws, kills, ended = random.Random(7), 0, 0
    notes: list[str] = []
    run = Run.make(tmp_path / "run0", tied_folder)
    while kills < 20 or not (run.folder / "end.pt").exists():
        if (run.folder / "end.pt").exists():
            check_end(run, alone[0])
            ended += 1
            run = Run.make(tmp_path / f"run{ended}", tied_folder)
        started, delay = len(run.diary()), draws.uniform(0.0, alone[1])
        process = run.start()
        process.join(delay if kills < 20 else None)
        if process.exitcode is None:
            process.kill()
            process.join()
            kills += 1
            moment = f"run {ended}, after {delay:.2f} s, {resumed_from(run, started)}"
            notes.append(kill_and_note(run, kills, moment, started))
        else:
            assert process.exitcode == 0, (run.folder / "output.txt").read_text()[-3000:]
            notes.append(f"    run {ended} ends at step {STEPS}, {resumed_from(run, started)}")
            print(notes[-1])
    check_end(run, alone[0])
    (tmp_path / "kills.txt").write_text("\n".join(notes) + "\n")
