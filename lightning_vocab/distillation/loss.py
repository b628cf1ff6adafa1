"""The two losses of token distillation."""

from __future__ import annotations

import torch
from torch import Tensor


def hidden_mse(student: Tensor, teacher: Tensor, teacher_positions: Tensor) -> Tensor:
    """Mean squared difference of hidden states at positions that have read the same text.

    The mean is over those positions of the whole batch and over the width, in float32 at least:
    ``MSE(h_student, h_teacher)`` of token distillation (arXiv 2505.20133), for a batch. There must
    be such a position.

    Args:
        student: Hidden states of the student, ``(batch, time, dim)``.
        teacher: Hidden states of the teacher, ``(batch, teacher_time, dim)``.
        teacher_positions: The teacher's position that matches each of the student's, negative where
            none does, ``(batch, time)``, int64.

    Example:
        >>> student = torch.tensor([[[1.0, 2.0], [5.0, 5.0]]])
        >>> teacher = torch.tensor([[[9.0, 9.0], [8.0, 8.0], [5.0, 3.0]]])
        >>> hidden_mse(student, teacher, torch.tensor([[-100, 2]])).item()
        2.0
    """
    row, position = (teacher_positions >= 0).nonzero(as_tuple=True)
    ours, theirs = student[row, position], teacher[row, teacher_positions[row, position]]
    if ours.dtype != torch.float64:
        ours, theirs = ours.float(), theirs.float()
    return (ours - theirs).square().mean()


def balanced(loss: Tensor, other: Tensor, weight: float) -> Tensor:
    """``loss + alpha * other`` with ``alpha = weight * loss / other``, through which nothing flows.

    So the second loss pulls as hard as the first at ``weight`` 1, whatever their units.

    Args:
        loss: A scalar.
        other: Another; where it is 0, so is its gradient's factor.
        weight: How hard the other pulls.

    Example:
        >>> balanced(torch.tensor(0.5), torch.tensor(4.0), weight=1.0).item()
        1.0
    """
    smallest = torch.finfo(other.dtype).tiny
    alpha = weight * loss.detach() / other.detach().clamp(min=smallest)
    return loss + alpha * other
