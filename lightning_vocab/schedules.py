"""Learning-rate schedules that know the named parameter groups."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from typing_extensions import override


class WarmupCosine(LRScheduler):
    """Linear warm-up, then a cosine down to a share of the group's own learning rate.

    A group that is frozen at first gets a warm-up of its own, from the step at which it is
    unfrozen: its first steps are its most dangerous ones. Its cosine is the one of all groups.

    Args:
        optimizer: The optimizer, with named parameter groups.
        total_steps: Optimizer steps of the whole run; the rate stays at its minimum behind them.
        warmup_steps: Steps from 0 to the group's full rate.
        min_share: Rate at the end as a share of the group's full rate.
        starts: Step at which each named group begins, for those that do not begin at 0.
        last_epoch: Step to continue from; -1 for a new run.

    Raises:
        ValueError: If a number makes no schedule, or a start names a group that does not exist.

    Example:
        >>> import torch
        >>> rows = torch.nn.Parameter(torch.zeros(2, 2))
        >>> optimizer = torch.optim.SGD([{"params": [rows], "name": "new_rows", "lr": 1.0}])
        >>> schedule = WarmupCosine(optimizer, total_steps=10, warmup_steps=2)
        >>> schedule.get_last_lr()
        [0.5]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        warmup_steps: int = 0,
        min_share: float = 0.1,
        starts: dict[str, int] | None = None,
        last_epoch: int = -1,
    ) -> None:
        if not 0 <= warmup_steps < total_steps:
            raise ValueError(
                f"Expected 0 <= warmup_steps < total_steps, got {warmup_steps} and {total_steps}."
            )
        if not 0.0 <= min_share <= 1.0:
            raise ValueError(f"min_share must lie between 0 and 1, got {min_share}.")
        names = [group.get("name") for group in optimizer.param_groups]
        unknown = sorted(set(starts or ()) - set(names))
        if unknown:
            raise ValueError(f"starts names {unknown}, but the parameter groups are {names}.")
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.min_share = min_share
        self.starts = [(starts or {}).get(str(name), 0) for name in names]
        super().__init__(optimizer, last_epoch)

    @override
    def get_lr(self) -> list[float]:  # type: ignore[override]  # the base also allows tensors
        """Rate of each group at the current step."""
        return [
            float(rate) * self._factor(start)
            for rate, start in zip(self.base_lrs, self.starts, strict=True)
        ]

    @override
    def state_dict(self) -> dict[str, Any]:
        """Where the run is; its shape comes from the arguments, so a resumed run may be longer."""
        return {name: self.__dict__[name] for name in ("last_epoch", "_step_count")}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to the saved step; the rates there are those of this run's arguments."""
        super().load_state_dict(state_dict)
        rates = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = list(rates)

    def _factor(self, start: int) -> float:
        # One more than the step: a rate of exactly 0 would waste the first step of each group.
        warm = min((self.last_epoch - start + 1) / max(self.warmup_steps, 1), 1.0)
        done = (self.last_epoch - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        done = min(max(done, 0.0), 1.0)
        cosine = 0.5 * (1.0 + math.cos(math.pi * done))
        return max(warm, 0.0) * (self.min_share + (1.0 - self.min_share) * cosine)
