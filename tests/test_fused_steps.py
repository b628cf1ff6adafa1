from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import AdamW

from lightning_vocab.fused_steps import leave_unscaling_to_the_trainer


@pytest.mark.parametrize("is_fused", [True, False])
def test_scaled_gradients_are_unscaled_before_they_are_clipped(is_fused: bool) -> None:
    def step(scale: float | None) -> Tensor:
        weight = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
        optimizer = AdamW([weight], lr=0.1, fused=is_fused or None)
        leave_unscaling_to_the_trainer(optimizer)
        assert not getattr(optimizer, "_step_supports_amp_scaling", False)  # or Lightning refuses
        scaler = GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
        for _ in range(2):
            optimizer.zero_grad()
            scaler.scale(weight.square().sum()).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            scaler.unscale_(optimizer)
            norm = torch.nn.utils.clip_grad_norm_([weight], 1.0)
            assert 4.0 < float(norm) < 8.0  # of 2 * weight: nothing of the scale is left in it
            scaler.step(optimizer)
            scaler.update()
        return weight.detach()

    torch.testing.assert_close(step(1024.0), step(None))
