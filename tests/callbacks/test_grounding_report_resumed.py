"""What `GroundingReport` does in a run that goes on from a checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_vocab.callbacks.grounding_report import GroundingReport
from tests.callbacks.modules import SaveAt, is_same
from tests.callbacks.test_grounding_report import NAMES, fit, same

pytestmark = pytest.mark.filterwarnings("ignore:Text around")


def written(file: Path, names: list[str]) -> str:
    lines = [{"token": f"<{i}>", "description": name} for i, name in enumerate(names)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(file)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", NAMES)


@pytest.fixture(scope="module")
def other_pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same tokens, each with the description of another."""
    return written(tmp_path_factory.mktemp("other") / "pairs.jsonl", [*NAMES[1:], NAMES[0]])


@pytest.mark.slow
def test_a_resumed_run_keeps_the_first_values_and_the_reference(
    tied_folder: str, pairs: str, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "at_2.ckpt"
    whole = GroundingReport()
    fit(tmp_path, tied_folder, pairs, [whole, SaveAt(checkpoint, 2)], max_steps=4)
    resumed = GroundingReport()
    fit(tmp_path, tied_folder, pairs, [resumed], max_steps=4, ckpt_path=str(checkpoint))
    assert same(resumed.before, whole.before)
    assert same(resumed.after, whole.after)
    first, again = (report.state_dict() for report in (whole, resumed))
    assert torch.equal(first["space"], again["space"])
    assert is_same(first["pictures"], again["pictures"])


def test_a_run_that_is_resumed_at_its_end_makes_the_report(
    tied_folder: str, pairs: str, tmp_path: Path
) -> None:
    checkpoint, file = tmp_path / "at_2.ckpt", tmp_path / "report.json"
    whole = GroundingReport(str(file))
    fit(tmp_path, tied_folder, pairs, [whole, SaveAt(checkpoint, 2)], max_steps=2)
    written_first = file.read_bytes()
    file.unlink()
    again = GroundingReport(str(file))
    fit(tmp_path, tied_folder, pairs, [again], max_steps=2, ckpt_path=str(checkpoint))
    assert file.read_bytes() == written_first


def test_a_run_that_did_not_measure_its_start_cannot_be_taken_up(
    tied_folder: str, pairs: str, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "at_1.ckpt"
    fit(tmp_path, tied_folder, pairs, [SaveAt(checkpoint, 1)], max_steps=1)
    with pytest.raises(MisconfigurationException, match="did not measure its first rows"):
        fit(
            tmp_path,
            tied_folder,
            pairs,
            [GroundingReport()],
            max_steps=2,
            ckpt_path=str(checkpoint),
        )


@pytest.mark.slow
def test_other_pairs_of_the_same_tokens_are_noticed(
    tied_folder: str, pairs: str, other_pairs: str, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "at_1.ckpt"
    reports = [GroundingReport(), SaveAt(checkpoint, 1)]
    fit(tmp_path, tied_folder, pairs, reports, max_steps=1)
    for given, report in (
        (other_pairs, GroundingReport()),
        (pairs, GroundingReport(max_pairs=5)),
    ):
        with pytest.raises(MisconfigurationException, match="by other pairs, or by another sample"):
            fit(
                tmp_path,
                tied_folder,
                given,
                [report],
                max_steps=2,
                ckpt_path=str(checkpoint),
            )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Be aware that when using")
def test_a_file_of_pairs_may_lie_elsewhere_but_not_hold_others(
    tied_folder: str, pairs: str, other_pairs: str, tmp_path: Path
) -> None:
    checkpoint, moved = tmp_path / "at_1.ckpt", tmp_path / "moved.jsonl"
    first = GroundingReport(pairs=pairs)
    fit(tmp_path, tied_folder, pairs, [first, SaveAt(checkpoint, 1)], max_steps=1)
    shutil.copy(pairs, moved)
    again = GroundingReport(pairs=str(moved))
    fit(tmp_path, tied_folder, pairs, [again], max_steps=2, ckpt_path=str(checkpoint))
    assert same(again.before, first.before)
    other = GroundingReport(pairs=other_pairs)
    with pytest.raises(MisconfigurationException, match="first rows by these pairs"):
        fit(tmp_path, tied_folder, pairs, [other], max_steps=2, ckpt_path=str(checkpoint))
