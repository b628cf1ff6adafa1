"""What a run was told holds, whatever options a restored optimizer brings with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR

from lightning_vocab.schedules import WarmupCosine

Options = dict[str, dict[str, Any]]


def configured_options(optimizer: Optimizer) -> Options:
    """What each parameter group of a fresh optimizer was given, before a schedule touches it.

    State that some optimizers keep in their groups (schedule-free ones) is none of it.

    Args:
        optimizer: An optimizer that has taken no step.
    """
    return {
        _name(group, index): {
            key: float(group[key]) if isinstance(group[key], Tensor) else group[key]
            for key in optimizer.defaults
            if key in group
        }
        for index, group in enumerate(optimizer.param_groups)
    }


def keep_configured_options(
    optimizer: Optimizer,
    schedulers: Iterable[Any],
    configured: Mapping[str, Mapping[str, Any]],
    saved: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Give a restored optimizer the options of this run where they differ from the saved run's.

    `torch.optim.Optimizer.load_state_dict` takes learning rates, decays and betas from the
    checkpoint, so those of the command line would be lost without a word. Momentum and the position
    in the schedule stay as restored. Where nothing was changed, nothing is touched: a resumed run
    stays bit-equal to the uninterrupted one.

    Args:
        optimizer: The restored optimizer.
        schedulers: Its restored schedules.
        configured: `configured_options` of this run.
        saved: `configured_options` of the run that wrote the checkpoint.

    Returns:
        One line for each option that was changed.

    Raises:
        ValueError: If a learning rate was changed under a schedule that holds rates of its own.
    """
    schedules = list(schedulers)
    changes = []
    for index, group in enumerate(optimizer.param_groups):
        name = _name(group, index)
        for key, value in configured[name].items():
            former = saved.get(name, {}).get(key, value)
            if _same(former, value):
                continue
            changes.append(f"{name}: {key} {value} (the checkpoint has {former})")
            if key == "lr":
                _change_rate(group, index, schedules, former, value)
            else:
                group[key] = value
        _place_steps(optimizer, group)
    return changes


def _place_steps(optimizer: Optimizer, group: Mapping[str, Any]) -> None:
    """Step counts that a fused optimizer restored from one that was not: beside the parameters.

    torch keeps the counts of an optimizer that is neither fused nor capturable on the CPU, and the
    fused kernel of a GPU wants them on the GPU.
    """
    if not (group.get("fused") or group.get("capturable")):
        return
    for parameter in group["params"]:
        state = optimizer.state.get(parameter, {})
        if isinstance(state.get("step"), Tensor):
            state["step"] = state["step"].to(parameter.device, torch.float32)  # as torch has it


def _name(group: Mapping[str, Any], index: int) -> str:
    return str(group.get("name", index))


def _same(former: Any, value: Any) -> bool:
    if isinstance(former, list | tuple) and isinstance(value, list | tuple):
        return list(former) == list(value)
    return bool(former == value)


def _change_rate(
    group: dict[str, Any], index: int, schedules: list[Any], former: float, value: float
) -> None:
    """Full rate and, in proportion, the current one."""
    for schedule in schedules:
        if isinstance(schedule, WarmupCosine):
            return  # computes the rate from this run's arguments alone
        if not isinstance(schedule, LRScheduler) or isinstance(schedule, OneCycleLR | CyclicLR):
            _refuse(schedule, former, value)
        if not hasattr(schedule, "base_lrs"):  # SequentialLR and ChainedScheduler
            _refuse(schedule, former, value)
        schedule.base_lrs[index] = value
    group["lr"] = group["lr"] * (value / former) if former else value
    if "initial_lr" in group:
        group["initial_lr"] = value


def _refuse(schedule: object, former: float, value: float) -> None:
    raise ValueError(
        f"The learning rate was changed from {former} to {value} on resume, which "
        f"{type(schedule).__name__} cannot follow: it holds rates of its own. Keep the rate, or "
        "use WarmupCosine or another schedule that scales the groups' rates."
    )
