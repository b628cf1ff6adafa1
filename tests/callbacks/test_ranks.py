"""Two processes on the CPU: gradients of what was unfrozen are exchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from lightning_vocab.callbacks import FreezeBackbone, GradMaskNewRows, UnfreezeAt
from tests.callbacks.modules import (
    NEW_IDS,
    Options,
    PicoModule,
    SaveAt,
    fit_two_ranks,
    is_same,
    make_trainer,
)
from tests.conftest import case

pytestmark = pytest.mark.ddp
RESUMING = pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before")


def stages() -> list[Callback]:
    return [FreezeBackbone(), UnfreezeAt(2, phase="embeddings"), UnfreezeAt(4)]


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "find_unused": {"ddp": {"find_unused_parameters": True}},
    "bucket_view": {"ddp": {"gradient_as_bucket_view": True}},
    "accumulate": {"accumulate_grad_batches": 2, "gradient_clip_val": 0.5},
}


@pytest.mark.parametrize("variant", [case(name, quick=name == "accumulate") for name in VARIANTS])
def test_ranks_agree_after_unfreeze(variant: str, tmp_path: Path) -> None:
    callbacks = stages()
    first, second = fit_two_ranks(tmp_path, PicoModule(), callbacks, **VARIANTS[variant])
    assert first["trained"][-1][1][:2] == ("backbone_decay", "backbone_no_decay")
    assert is_same(first, second)


@pytest.mark.slow
def test_ranks_agree_with_callbacks_in_the_other_order(tmp_path: Path) -> None:
    runs = [
        fit_two_ranks(tmp_path / name, PicoModule(), callbacks)
        for name, callbacks in (("forth", stages()), ("back", stages()[::-1]))
    ]
    assert is_same(runs[1][0], runs[1][1])
    assert is_same(runs[0], runs[1])


@pytest.mark.parametrize(
    "tied", [case(True, quick=True, id="tied"), case(False, quick=False, id="untied")]
)
def test_two_ranks_train_on_the_mean_of_their_gradients(tied: bool, tmp_path: Path) -> None:
    both = fit_two_ranks(tmp_path, PicoModule(tied=tied, optimizer="sgd"), stages())[0]
    alone = PicoModule(tied=tied, optimizer="sgd", ranks=(0, 1))
    make_trainer(tmp_path, stages()).fit(alone)
    for name, weight in alone.state_dict().items():
        torch.testing.assert_close(both["weights"][name], weight, msg=name)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:It is recommended to use .*sync_dist"
)  # ranks disagree on purpose
def test_all_ranks_follow_the_stall_that_rank_0_sees(tmp_path: Path) -> None:
    callbacks = [FreezeBackbone(), UnfreezeAt(monitor="val/score", patience=1)]
    module = PicoModule(scores=(3.0, 3.0))
    options: Options = {"max_steps": 13, "limit_val_batches": 1}
    first, second = fit_two_ranks(tmp_path, module, callbacks, **options)
    assert next(step for step, groups in first["trained"] if "backbone_decay" in groups) == 10
    assert is_same(first, second)


@pytest.mark.slow
@RESUMING
@pytest.mark.filterwarnings("ignore:It is recommended to use .*sync_dist")  # they must disagree
def test_resume_on_two_ranks_keeps_a_stall(tmp_path: Path) -> None:
    path = tmp_path / "stopped.ckpt"
    options: Options = {"max_steps": 12, "limit_val_batches": 1}

    def run(folder: Path, *saving: Callback, ckpt_path: str | None = None) -> list[dict[str, Any]]:
        callbacks = [FreezeBackbone(), UnfreezeAt(monitor="val/score", patience=1), *saving]
        module = PicoModule(scores=(3.0, 3.0))
        return fit_two_ranks(folder, module, callbacks, ckpt_path=ckpt_path, **options)

    whole = run(tmp_path, SaveAt(path, 11))
    resumed = run(tmp_path / "resumed", ckpt_path=str(path))
    assert "backbone_decay" in resumed[0]["trained"][0][1]
    assert resumed[0]["trained"] == whole[0]["trained"][11:]
    for rank in (0, 1):
        assert is_same(resumed[rank]["weights"], whole[rank]["weights"])


@pytest.mark.slow
def test_ranks_agree_with_masked_rows_of_an_ordinary_model(tmp_path: Path) -> None:
    mask = GradMaskNewRows(until_step=3, new_ids=NEW_IDS)
    callbacks = [mask, FreezeBackbone(), UnfreezeAt(4)]
    first, second = fit_two_ranks(tmp_path, PicoModule(split=False), callbacks)
    assert is_same(first, second)


@RESUMING
@pytest.mark.parametrize(
    "stop",
    [
        case(1, quick=False, id="frozen"),
        case(3, quick=True, id="embeddings"),
        case(7, quick=False, id="full"),
    ],
)
def test_resume_on_two_ranks_equals_uninterrupted(stop: int, tmp_path: Path) -> None:
    path = tmp_path / "stopped.ckpt"
    callbacks = [*stages(), SaveAt(path, stop)]
    whole = fit_two_ranks(tmp_path, PicoModule(), callbacks)
    resumed = fit_two_ranks(
        tmp_path / "resumed",
        PicoModule(),
        stages(),
        ckpt_path=str(path),
    )
    for rank in (0, 1):
        resumed[rank]["trained"] = whole[rank]["trained"][:stop] + resumed[rank]["trained"]
    assert is_same(whole, resumed)
