from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LRScheduler,
    OneCycleLR,
    SequentialLR,
)

from lightning_vocab.resuming import Options, configured_options, keep_configured_options
from lightning_vocab.schedules import WarmupCosine

FRESH: dict[int, Options] = {}
"""What each optimizer was given, by its identity."""


def make_run(lr: float, decay: float, total_steps: int = 10) -> tuple[Optimizer, WarmupCosine]:
    weight = torch.nn.Parameter(torch.ones(2))
    group = {"name": "new_rows", "params": [weight], "lr": lr, "weight_decay": decay}
    optimizer = AdamW([group])
    FRESH[id(optimizer)] = configured_options(optimizer)
    return optimizer, WarmupCosine(optimizer, total_steps=total_steps, min_share=0.0)


def take_steps(optimizer: Optimizer, schedule: LRScheduler, count: int) -> None:
    for _ in range(count):
        for group in optimizer.param_groups:
            for weight in group["params"]:
                weight.grad = torch.ones_like(weight)
        optimizer.step()
        schedule.step()


def resume(
    first: tuple[Optimizer, WarmupCosine], second: tuple[Optimizer, WarmupCosine]
) -> list[str]:
    optimizer, schedule = second
    optimizer.load_state_dict(copy.deepcopy(first[0].state_dict()))
    schedule.load_state_dict(copy.deepcopy(first[1].state_dict()))
    return keep_configured_options(optimizer, [schedule], FRESH[id(optimizer)], FRESH[id(first[0])])


def test_a_resumed_run_trains_with_the_rate_and_decay_it_was_given() -> None:
    first = make_run(lr=1.0, decay=0.1)
    take_steps(*first, 4)
    second = make_run(lr=0.5, decay=0.2)
    changes = resume(first, second)
    assert len(changes) == 2
    group = second[0].param_groups[0]
    assert group["weight_decay"] == 0.2
    straight = make_run(lr=0.5, decay=0.2)
    take_steps(*straight, 4)
    assert group["lr"] == pytest.approx(straight[0].param_groups[0]["lr"])
    take_steps(*second, 1)
    take_steps(*straight, 1)
    assert group["lr"] == pytest.approx(straight[0].param_groups[0]["lr"])


def test_nothing_is_touched_where_nothing_was_changed() -> None:
    first = make_run(lr=1.0, decay=0.1)
    take_steps(*first, 4)
    second = make_run(lr=1.0, decay=0.1)
    assert resume(first, second) == []
    assert second[0].param_groups[0]["lr"] == first[0].param_groups[0]["lr"]


def test_momentum_is_the_checkpoints() -> None:
    first = make_run(lr=1.0, decay=0.1)
    take_steps(*first, 4)
    second = make_run(lr=0.5, decay=0.1)
    resume(first, second)
    (state,) = second[0].state.values()
    assert float(state["step"]) == 4


def test_a_run_that_is_resumed_with_a_fused_optimizer_has_its_step_counts_beside_the_rows() -> None:
    def make(is_fused: bool) -> Optimizer:
        weight = torch.nn.Parameter(torch.ones(2, device="meta"))
        return AdamW([{"name": "new_rows", "params": [weight]}], fused=is_fused or None)

    first = make(is_fused=False)
    (weight,) = first.param_groups[0]["params"]
    moments = {name: torch.zeros(2, device="meta") for name in ("exp_avg", "exp_avg_sq")}
    first.state[weight] = {"step": torch.tensor(4.0), **moments}  # on the CPU, as torch has it
    second = make(is_fused=True)
    configured = configured_options(second)
    second.load_state_dict(first.state_dict())
    (state,) = second.state.values()
    assert state["step"].device.type == "cpu"
    changes = keep_configured_options(second, [], configured, configured_options(first))
    assert changes == ["new_rows: fused True (the checkpoint has None)"]
    assert second.param_groups[0]["fused"] is True
    assert state["step"].device.type == "meta"


def test_a_resumed_run_may_be_longer_than_its_checkpoint_planned() -> None:
    first = make_run(lr=1.0, decay=0.0, total_steps=10)
    take_steps(*first, 4)
    second = make_run(lr=1.0, decay=0.0, total_steps=20)
    resume(first, second)
    straight = make_run(lr=1.0, decay=0.0, total_steps=20)
    take_steps(*straight, 4)
    assert second[0].param_groups[0]["lr"] == pytest.approx(straight[0].param_groups[0]["lr"])
    take_steps(*straight, 1)
    take_steps(*second, 1)
    assert second[0].param_groups[0]["lr"] == pytest.approx(straight[0].param_groups[0]["lr"])


def plain_run(lr: float) -> Optimizer:
    weight = torch.nn.Parameter(torch.ones(2))
    return AdamW([{"name": "new_rows", "params": [weight], "lr": lr}])


def test_a_schedule_of_torch_follows_a_changed_rate() -> None:
    def run(lr: float) -> tuple[Optimizer, CosineAnnealingLR, Options]:
        optimizer = plain_run(lr)
        options = configured_options(optimizer)
        return optimizer, CosineAnnealingLR(optimizer, T_max=10), options

    first, schedule, saved = run(1.0)
    take_steps(first, schedule, 4)
    second, again, configured = run(0.5)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    again.load_state_dict(copy.deepcopy(schedule.state_dict()))
    keep_configured_options(second, [again], configured, saved)
    straight, reference, _ = run(0.5)
    take_steps(straight, reference, 7)
    take_steps(second, again, 3)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in (second, straight)]
    assert rates[0] == pytest.approx(rates[1])


@pytest.mark.parametrize("kind", ["one cycle", "sequential"])
def test_a_schedule_that_cannot_follow_a_changed_rate_is_refused(kind: str) -> None:
    optimizer = plain_run(0.5)
    options = configured_options(optimizer)
    schedule: Any = (
        OneCycleLR(optimizer, max_lr=1.0, total_steps=10)
        if kind == "one cycle"
        else SequentialLR(
            optimizer,
            [ConstantLR(optimizer), CosineAnnealingLR(optimizer, T_max=5)],
            milestones=[2],
        )
    )
    saved = {"new_rows": options["new_rows"] | {"lr": 1.0}}
    with pytest.raises(ValueError, match="cannot follow"):
        keep_configured_options(optimizer, [schedule], options, saved)
    assert keep_configured_options(optimizer, [schedule], options, options) == []
