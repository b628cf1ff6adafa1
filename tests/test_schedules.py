from __future__ import annotations

import math

import pytest
import torch
from torch.optim import SGD, Optimizer

from lightning_vocab.schedules import WarmupCosine


def make_optimizer() -> Optimizer:
    groups = [
        {"name": name, "params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate}
        for name, rate in (("new_rows", 1.0), ("backbone_decay", 0.1))
    ]
    return SGD(groups)


def rates(schedule: WarmupCosine, steps: int) -> list[list[float]]:
    seen = []
    for _ in range(steps):
        seen.append([float(rate) for rate in schedule.get_last_lr()])
        schedule.optimizer.step()
        schedule.step()
    return seen


def test_the_rate_rises_linearly_then_follows_the_cosine_of_its_formula() -> None:
    schedule = WarmupCosine(make_optimizer(), total_steps=12, warmup_steps=2, min_share=0.1)
    new = [pair[0] for pair in rates(schedule, 13)]
    assert new[:2] == pytest.approx([0.5, 1.0])
    expected = [0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / 10)) for step in range(11)]
    assert new[2:] == pytest.approx(expected)


def test_a_group_that_starts_later_warms_up_from_its_own_start() -> None:
    schedule = WarmupCosine(
        make_optimizer(),
        total_steps=100,
        warmup_steps=4,
        min_share=1.0,
        starts={"backbone_decay": 5},
    )
    backbone = [pair[1] for pair in rates(schedule, 10)]
    assert backbone == pytest.approx([0] * 5 + [0.025, 0.05, 0.075, 0.1, 0.1])


def test_a_restored_schedule_continues_as_the_uninterrupted_one() -> None:
    whole = rates(WarmupCosine(make_optimizer(), total_steps=9, warmup_steps=2), 9)
    first = WarmupCosine(make_optimizer(), total_steps=9, warmup_steps=2)
    rates(first, 4)
    second = WarmupCosine(make_optimizer(), total_steps=9, warmup_steps=2)
    second.load_state_dict(first.state_dict())
    second.optimizer.step()
    assert rates(second, 5) == whole[4:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"total_steps": 5, "warmup_steps": 5}, "warmup_steps < total_steps, got 5 and 5"),
        ({"total_steps": 5, "min_share": 2.0}, "between 0 and 1, got 2.0"),
        ({"total_steps": 5, "starts": {"head": 3}}, r"starts names \['head'\]"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WarmupCosine(make_optimizer(), **arguments)  # type: ignore[arg-type]
