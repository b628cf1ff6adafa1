"""What a run was told holds, whatever options a restored optimizer brings with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

_KEPT = ("params", "lr", "initial_lr", "name")


def configured_options(optimizer: Optimizer) -> dict[str, dict[str, Any]]:
    """Options of each named parameter group of a fresh optimizer, with its full learning rate."""
    return {
        group["name"]: {key: value for key, value in group.items() if key not in _KEPT}
        | {"lr": group.get("initial_lr", group["lr"])}
        for group in optimizer.param_groups
    }


def keep_configured_options(
    optimizer: Optimizer,
    schedulers: Iterable[LRScheduler],
    configured: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Undo what restoring an optimizer did to the options that this run was given.

    `torch.optim.Optimizer.load_state_dict` takes learning rates, decays and betas from the
    checkpoint, so those of the command line would be lost without a word. Momentum and the position
    in the schedule stay as restored. Where nothing was changed, nothing is touched: a resumed run
    stays bit-equal to the uninterrupted one.

    Args:
        optimizer: The restored optimizer.
        schedulers: Its restored schedules.
        configured: What `configured_options` gave before the restoring.

    Returns:
        One line for each option that was changed.
    """
    changes = []
    for index, group in enumerate(optimizer.param_groups):
        options = configured[group["name"]]
        for key, value in options.items():
            restored: Any = group.get("initial_lr", group["lr"]) if key == "lr" else group.get(key)
            if restored == value:
                continue
            changes.append(f"{group['name']}: {key} {value} (the checkpoint has {restored})")
            if key == "lr":
                _set_rate(group, restored, value)
                for scheduler in schedulers:
                    scheduler.base_lrs[index] = value
            else:
                group[key] = value
    return changes


def _set_rate(group: dict[str, Any], before: float, now: float) -> None:
    """Full rate and, in proportion, the current one."""
    group["lr"] = group["lr"] * (now / before) if before else now
    if "initial_lr" in group:
        group["initial_lr"] = now
