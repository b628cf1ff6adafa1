"""A run that is stopped and resumed ends as the uninterrupted one does, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_vocab.callbacks import FreezeBackbone, GradMaskNewRows, UnfreezeAt
from tests.callbacks.modules import NEW_IDS, Options, PicoModule, SaveAt, fit, is_same, make_trainer
from tests.conftest import case

# The batches follow from the batch index, so a loader that starts anew changes nothing here.
pytestmark = pytest.mark.filterwarnings(
    "ignore:You're resuming from a checkpoint that ended before the epoch"
)


LIMITS: dict[str, Options] = {
    "steps": {"max_steps": 14},
    "epochs": {"max_steps": -1, "max_epochs": 3},
}
QUICK_STOPS = ((7, "mid_epoch", "steps"), (5, "epoch_end", "epochs"), (10, "max_steps", "epochs"))


def two_steps() -> list[Callback]:
    return [UnfreezeAt(4), FreezeBackbone(), UnfreezeAt(2, phase="embeddings")]


def one_epoch() -> list[Callback]:
    return [FreezeBackbone(), UnfreezeAt(epoch=1)]


def masked() -> list[Callback]:
    return [FreezeBackbone(), GradMaskNewRows(until_step=3), UnfreezeAt(2)]


def stalled() -> list[Callback]:
    return [UnfreezeAt(monitor="val/score", patience=2), FreezeBackbone()]


def resumed_and_whole(
    folder: Path,
    callbacks: Callable[[], list[Callback]],
    stop: int,
    *,
    split: bool = True,
    after_validation: bool = False,
    **options: Any,
) -> tuple[dict[str, Any], dict[str, Any]]:
    path = folder / "stopped.ckpt"
    first, second = (PicoModule(scores=(3.0, 3.0, 3.0, 2.0), split=split) for _ in range(2))
    whole = fit(
        folder,
        first,
        [*callbacks(), SaveAt(path, stop, after_validation=after_validation)],
        **options,
    )
    resumed = fit(folder, second, callbacks(), ckpt_path=str(path), **options)
    before = [seen for seen in whole["trained"] if seen[0] < stop]
    resumed["trained"] = before + resumed["trained"]
    return resumed, whole


@pytest.mark.parametrize(
    ("callbacks", "stop"),
    [
        # One phase each; 5 ends an epoch.
        *(case(two_steps, stop, quick=stop == 3) for stop in (1, 3, 5, 7)),
        *(case(one_epoch, stop, quick=stop == 5) for stop in (3, 5, 7)),
        *(case(masked, stop, quick=stop == 2) for stop in (1, 2, 4)),
    ],
)
def test_resume_equals_uninterrupted(
    callbacks: Callable[[], list[Callback]], stop: int, tmp_path: Path
) -> None:
    resumed, whole = resumed_and_whole(tmp_path, callbacks, stop)
    assert is_same(resumed, whole)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")  # one run saves
@pytest.mark.parametrize(
    ("stop", "place", "options"),
    [
        case(stop, place, LIMITS[limit], quick=one in QUICK_STOPS, id="-".join(map(str, one)))
        for one in product((5, 7, 10), ("mid_epoch", "epoch_end", "max_steps"), LIMITS)
        for stop, place, limit in (one,)
    ],
)
def test_an_epoch_comes_at_the_same_step_after_a_resume(
    place: str, stop: int, options: Options, tmp_path: Path
) -> None:
    def callbacks() -> list[Callback]:
        return [FreezeBackbone(), UnfreezeAt(epoch=2)]

    folder, module = tmp_path / "kept", PicoModule()
    if place == "max_steps":
        trainer = make_trainer(tmp_path, callbacks(), max_steps=stop)
        trainer.fit(PicoModule())
        trainer.save_checkpoint(folder / "last.ckpt")
    else:
        every: Options = {"every_n_train_steps": stop}
        if place == "epoch_end":
            every = {"every_n_epochs": max(1, stop // 5), "save_on_train_epoch_end": True}
        saving = ModelCheckpoint(folder, filename="{step}", save_top_k=-1, **every)
        fit(tmp_path, PicoModule(), [*callbacks(), saving], **options)
    path = min(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    resumed = fit(tmp_path, module, callbacks(), ckpt_path=str(path), **options)
    assert resumed["trained"]
    for step, groups in resumed["trained"]:
        assert ("backbone_decay" in groups) == (step >= 10)


@pytest.mark.parametrize("stop", [case(1, quick=False), case(3, quick=True)])
def test_resume_equals_uninterrupted_under_accumulation(stop: int, tmp_path: Path) -> None:
    options: Options = {"accumulate_grad_batches": 2, "max_steps": 6}
    resumed, whole = resumed_and_whole(tmp_path, two_steps, stop, **options)
    assert is_same(resumed, whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop", "after_validation"),
    [
        case(12, False, quick=False, id="1"),
        case(15, True, quick=True, id="due"),
        case(17, False, quick=False, id="full"),
    ],
)
def test_resume_keeps_what_a_stall_has_decided(
    stop: int, after_validation: bool, tmp_path: Path
) -> None:
    options: Options = {"max_steps": 18, "limit_val_batches": 1}
    options["after_validation"] = after_validation
    resumed, whole = resumed_and_whole(tmp_path, stalled, stop, **options)
    unfrozen = [step for step, groups in whole["trained"] if "backbone_decay" in groups]
    assert unfrozen == [15, 16, 17]  # the score of epoch 0 stands after epochs 1 and 2
    assert is_same(resumed, whole)


@pytest.mark.parametrize("stop", [case(2, quick=True), case(7, quick=False)])
def test_resume_equals_uninterrupted_with_an_ordinary_model(stop: int, tmp_path: Path) -> None:
    def callbacks() -> list[Callback]:
        return [FreezeBackbone(), UnfreezeAt(4), GradMaskNewRows(until_step=6, new_ids=NEW_IDS)]

    resumed, whole = resumed_and_whole(tmp_path, callbacks, stop, split=False)
    assert is_same(resumed, whole)


def test_checkpoint_loads_with_weights_only(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    module = PicoModule(scores=(3.0,))
    fit(tmp_path, module, [*stalled(), SaveAt(path, 2)], max_steps=2, limit_val_batches=1)
    loaded = torch.load(path, weights_only=True)
    states = [state for key, state in loaded["callbacks"].items() if key.startswith("UnfreezeAt")]
    assert states == [{"best": None, "num_stalled": 0, "is_due": False}]
