from __future__ import annotations

import torch
from torch import nn

from lightning_vocab.rows.held_rows import HeldRows


def test_gradient_that_is_not_finite_becomes_zero() -> None:
    matrix = nn.Parameter(torch.ones(3, 2))
    matrix.grad = torch.tensor([[float("inf"), 1.0], [2.0, 3.0], [float("nan"), 4.0]])
    HeldRows(matrix, [1]).zero_gradient()
    assert matrix.grad.tolist() == [[0.0, 0.0], [2.0, 3.0], [0.0, 0.0]]


def test_rows_are_put_back_and_new_rows_stay_moved() -> None:
    bias = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    bias.grad = torch.zeros(3)
    held = HeldRows(bias, [2])
    held.keep()
    with torch.no_grad():
        bias.add_(10.0)
    held.put_back()
    assert bias.tolist() == [1.0, 2.0, 13.0]


def test_first_values_of_a_step_are_the_ones_put_back() -> None:
    matrix = nn.Parameter(torch.tensor([[1.0], [2.0]]))
    matrix.grad = torch.zeros(2, 1)
    held = HeldRows(matrix, [1])
    held.keep()
    with torch.no_grad():
        matrix.fill_(5.0)
    held.keep()  # a closure that the optimizer calls twice
    held.put_back()
    assert matrix.tolist() == [[1.0], [5.0]]


def test_dropped_values_are_not_put_back() -> None:
    matrix = nn.Parameter(torch.tensor([[1.0], [2.0]]))
    matrix.grad = torch.zeros(2, 1)
    held = HeldRows(matrix, [1])
    held.keep()
    held.drop()
    with torch.no_grad():
        matrix.fill_(5.0)
    held.put_back()
    assert matrix.tolist() == [[5.0], [5.0]]
