from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_vocab.distillation.loss import balanced, hidden_mse


def naive_mse(student: Tensor, teacher: Tensor, positions: list[list[int]]) -> float:
    """The formula, one position after the other, in float64."""
    squares: list[float] = []
    for row, of_row in enumerate(positions):
        for ours, theirs in enumerate(of_row):
            if theirs >= 0:
                difference = student[row, ours].double() - teacher[row, theirs].double()
                squares += (difference**2).tolist()
    return sum(squares) / len(squares)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_hidden_loss_is_the_mean_over_aligned_positions_and_width(dtype: torch.dtype) -> None:
    student, teacher = torch.randn(2, 3, 5).to(dtype), torch.randn(2, 6, 5).to(dtype)
    positions = [[-100, 2, 3], [4, 5, -100]]
    loss = hidden_mse(student, teacher, torch.tensor(positions))
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert float(loss) == pytest.approx(naive_mse(student, teacher, positions), rel=1e-6)


def test_positions_that_do_not_count_get_no_gradient() -> None:
    student = torch.randn(1, 3, 4, requires_grad=True)
    hidden_mse(student, torch.randn(1, 4, 4), torch.tensor([[-100, 1, -100]])).backward()  # type: ignore[no-untyped-call]  # torch's
    assert student.grad is not None
    assert student.grad[0].abs().sum(dim=1).gt(0).tolist() == [False, True, False]


def test_the_second_loss_pulls_by_its_own_gradient_times_the_ratio() -> None:
    first = torch.tensor(3.0, requires_grad=True)
    second = torch.tensor(12.0, requires_grad=True)
    total = balanced(first, second, weight=2.0)
    total.backward()  # type: ignore[no-untyped-call]  # torch's
    assert total.item() == 3.0 + 2.0 * 3.0
    assert first.grad == 1.0
    assert second.grad == 2.0 * 3.0 / 12.0


def test_a_second_loss_of_zero_gives_no_nan() -> None:
    zero = torch.tensor(0.0, requires_grad=True)
    balanced(torch.tensor(0.0), zero, weight=1.0).backward()  # type: ignore[no-untyped-call]  # torch's
    assert zero.grad == 0.0
