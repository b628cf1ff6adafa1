"""A fused optimizer in a Trainer that clips."""

from __future__ import annotations

from torch.optim import Optimizer

_UNSCALES = "_step_supports_amp_scaling"
"""What torch's GradScaler asks an optimizer before a step, and Lightning before it clips."""


def leave_unscaling_to_the_trainer(optimizer: Optimizer) -> None:
    """Let the Trainer, not a fused optimizer's step, divide gradients by the scale of 16-mixed.

    A fused step would do both in one pass, but then there is nothing to clip by before it, and
    Lightning refuses. Lightning 2.6 refuses under ``bf16-mixed`` as well, where nothing is scaled
    (Lightning-AI/pytorch-lightning#21435); once that is mended this is needed for 16-mixed alone.

    Args:
        optimizer: Any optimizer; one that is not fused is left as it is.
    """
    if getattr(optimizer, _UNSCALES, False):
        setattr(optimizer, _UNSCALES, False)
