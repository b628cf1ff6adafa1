from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_vocab.functional import _correlations
from lightning_vocab.functional.matching_pursuit import (
    Form,
    SparseCodes,
    orthogonal_matching_pursuit,
)
from lightning_vocab.initializers.stored_rows import read_rows
from tests.conftest import case

FORMS: tuple[Form, ...] = ("residual", "gram")
both_forms = pytest.mark.parametrize("form", FORMS)


def naive(target: Tensor, atoms: Tensor, k: int, *, normalise: bool) -> tuple[list[int], Tensor]:
    """Chosen atoms and coefficients by the definition, least squares anew at each step."""
    target, atoms = target.double(), atoms.double()
    ids: list[int] = []
    residual, coefficients = target, target[:0]
    for _ in range(k):
        scores = (atoms @ residual).abs() / (atoms.norm(dim=1) if normalise else 1)
        scores[ids] = -1
        ids.append(int(scores.argmax()))
        coefficients = torch.linalg.lstsq(atoms[ids].T, target[:, None]).solution[:, 0]
        residual = target - coefficients @ atoms[ids]
    return ids, coefficients


def drawn(num_targets: int = 12, num_atoms: int = 150, dim: int = 32) -> tuple[Tensor, Tensor]:
    """Targets and atoms of many lengths with a mean of their own, as embeddings have."""
    atoms = torch.randn(num_atoms, dim) * (0.2 + torch.rand(num_atoms, 1)) + 0.2
    return torch.randn(num_targets, dim) + 0.2, atoms


def rebuilt(codes: SparseCodes, atoms: Tensor) -> Tensor:
    return (codes.coefficients.double().unsqueeze(2) * atoms.double()[codes.ids]).sum(dim=1)


@both_forms
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_codes_are_those_of_the_definition(dtype: torch.dtype, normalise: bool, form: Form) -> None:
    targets, atoms = (each.to(dtype) for each in drawn())
    codes = orthogonal_matching_pursuit(targets, atoms, 10, normalise=normalise, form=form)
    assert codes.counts.tolist() == [10] * len(targets)
    assert codes.coefficients.dtype == torch.promote_types(dtype, torch.float32)
    for place, target in enumerate(targets):
        ids, coefficients = naive(target, atoms, 10, normalise=normalise)
        assert codes.ids[place].tolist() == ids
        close = 1e-9 if dtype == torch.float64 else 1e-4
        torch.testing.assert_close(
            codes.coefficients[place].double(), coefficients, atol=close, rtol=close
        )


@both_forms
def test_coefficients_are_the_least_squares_solution_on_their_support(form: Form) -> None:
    targets, atoms = drawn(6, 500, 64)
    codes = orthogonal_matching_pursuit(targets, atoms, 48, form=form)
    for target, ids, found in zip(targets, codes.ids, codes.coefficients, strict=True):
        expected = torch.linalg.lstsq(atoms[ids].double().T, target.double()[:, None]).solution[
            :, 0
        ]
        error = (target.double() - found.double() @ atoms[ids].double()).norm()
        least = (target.double() - expected @ atoms[ids].double()).norm()
        assert error <= least * (1 + 1e-5)


@both_forms
def test_a_target_that_is_an_atom_takes_that_atom_alone(form: Form) -> None:
    _, atoms = drawn()
    codes = orthogonal_matching_pursuit(-2 * atoms[5:8], atoms, 4, form=form)
    assert codes.counts.tolist() == [1, 1, 1]
    assert codes.ids[:, 0].tolist() == [5, 6, 7]
    assert codes.coefficients[:, 0].tolist() == pytest.approx([-2] * 3)
    assert not codes.ids[:, 1:].any()
    assert not codes.coefficients[:, 1:].any()


@both_forms
def test_orthogonal_atoms_give_the_coordinates_largest_first(form: Form) -> None:
    codes = orthogonal_matching_pursuit(
        torch.tensor([[1.0, -3.0, 2.0, 0.0]]), 2 * torch.eye(4), 4, form=form
    )
    assert codes.ids.tolist() == [[1, 2, 0, 0]]
    assert codes.coefficients.tolist() == [[-1.5, 1.0, 0.5, 0.0]]
    assert codes.counts.tolist() == [3]


@both_forms
def test_without_normalisation_the_longer_atom_is_chosen(form: Form) -> None:
    atoms = torch.tensor([[1.0, 0.0], [8.0, 8.0]])
    target = torch.tensor([[1.0, 0.1]])
    chosen = [
        orthogonal_matching_pursuit(target, atoms, 1, normalise=normalise, form=form).ids.item()
        for normalise in (True, False)
    ]
    assert chosen == [0, 1]


@both_forms
@pytest.mark.parametrize("normalise", [True, False])
def test_identical_atoms_are_not_taken_twice(normalise: bool, form: Form) -> None:
    atoms = torch.randn(5, 8).repeat(4, 1)  # rank 5
    codes = orthogonal_matching_pursuit(
        torch.randn(9, 8), atoms, 20, normalise=normalise, form=form
    )
    assert codes.counts.max() == 5
    for ids, count in zip(codes.ids.tolist(), codes.counts.tolist(), strict=True):
        assert len({id % 5 for id in ids[:count]}) == count


@both_forms
def test_more_atoms_than_dimensions_rebuild_a_target_and_end(form: Form) -> None:
    targets, atoms = drawn(8, 60, 6)
    codes = orthogonal_matching_pursuit(targets, atoms, 30, form=form)
    assert codes.counts.max() <= 7
    torch.testing.assert_close(rebuilt(codes, atoms).float(), targets, atol=1e-4, rtol=1e-4)


@both_forms
def test_zero_targets_and_zero_atoms_take_no_part(form: Form) -> None:
    targets, atoms = drawn(3, 20, 8)
    targets[1], atoms[::2] = 0, 0
    codes = orthogonal_matching_pursuit(targets, atoms, 6, form=form)
    assert codes.counts[1] == 0
    assert not codes.coefficients[1].any()
    assert all(id % 2 for id in codes.ids[0].tolist() + codes.ids[2].tolist())
    nothing = orthogonal_matching_pursuit(targets, torch.zeros(9, 8), 2, form=form)
    assert not nothing.counts.any()


@both_forms
def test_the_order_of_targets_and_the_batches_change_nothing(form: Form) -> None:
    targets, atoms = drawn(40, 600, 16)
    whole = orthogonal_matching_pursuit(targets, atoms, 8, form=form)
    order = torch.randperm(40)
    mixed = orthogonal_matching_pursuit(targets[order], atoms, 8, form=form)
    assert torch.equal(mixed.ids, whole.ids[order])
    torch.testing.assert_close(mixed.coefficients, whole.coefficients[order])
    limit = {"residual": 120_000, "gram": 1_800_000}[form]
    parts = orthogonal_matching_pursuit(targets, atoms, 8, form=form, memory_limit=limit)
    shape = (600, 16, 8, limit, 4)
    assert 1 <= _correlations.batch_size(*shape, gram=form == "gram") < 20
    assert torch.equal(parts.ids, whole.ids)
    torch.testing.assert_close(parts.coefficients, whole.coefficients)


@pytest.mark.slow
@pytest.mark.assets
@pytest.mark.parametrize("form", [case("gram", quick=True), case("residual", quick=False)])
def test_real_rows_are_rebuilt_in_float32_as_in_float64(form: Form, assets: Path) -> None:
    rows = read_rows(str(assets / "lm" / "english-4M")).embedding.float()
    targets, atoms = rows[3000:3064], rows[:2000]
    errors = []
    for dtype in (torch.float32, torch.float64):
        codes = orthogonal_matching_pursuit(targets.to(dtype), atoms.to(dtype), 64, form=form)
        errors.append((targets.double() - rebuilt(codes, atoms)).norm(dim=1))
    # Not the supports: a tie may take another branch.
    assert (errors[0] <= errors[1] * 1.01).all()


def test_no_target_has_no_code() -> None:
    codes = orthogonal_matching_pursuit(torch.empty(0, 4), torch.eye(4), 3)
    assert [tuple(each.shape) for each in codes] == [(0, 3), (0, 3), (0,)]


@pytest.mark.parametrize(
    ("shape", "gram"),
    [
        ((10_000, 12_000, 4096, 64), True),  # wide: what is left is dear to multiply
        ((10_000, 12_000, 384, 64), False),  # narrow: memory is slower
        ((10_000, 32_000, 4096, 64), False),  # 4 GiB of products
        ((20, 12_000, 4096, 64), False),  # too few targets to pay for the products
    ],
)
def test_the_form_is_chosen_by_shape_and_memory(shape: tuple[int, ...], gram: bool) -> None:
    num_targets, num_atoms, dim, k = shape
    assert _correlations.is_gram_faster(num_targets, num_atoms, dim, k, 1 << 30, 4) is gram


@pytest.mark.parametrize("gram", [True, False])
@pytest.mark.parametrize("dim", [896, 4096])
def test_what_a_batch_holds_is_within_the_memory(dim: int, gram: bool) -> None:
    num_atoms, k = 12_000 if gram else 151_936, 64
    size = _correlations.batch_size(num_atoms, dim, k, 1 << 30, 4, gram=gram)
    solver = size * k * (k + 4) * 8
    held = 4 * num_atoms**2 + 2 * 4 * size * num_atoms if gram else 4 * size * k * dim
    assert size >= 64
    assert solver + held < 0.9 * 2**30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k must be from 1 to the number of atoms, 4: got 0"),
        ({"k": 5}, "k must be from 1 to the number of atoms, 4: got 5"),
        ({"targets": torch.ones(2, 3)}, r"of the same width, got \(2, 3\) and \(4, 4\)"),
        ({"targets": torch.full((1, 4), torch.nan)}, "Expected finite targets"),
        ({"atoms": torch.full((4, 4), torch.inf)}, "Expected finite atoms"),
        ({"form": "fast"}, "form must be one of auto, residual, gram: got 'fast'"),
        ({"form": "gram", "memory_limit": 40}, "memory_limit of 40 bytes is too small"),
        ({"memory_limit": 40}, "memory_limit of 40 bytes is too small"),
    ],
)
def test_bad_input_is_refused(arguments: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"targets": torch.ones(2, 4), "atoms": torch.eye(4), "k": 2}
    with pytest.raises(ValueError, match=message):
        orthogonal_matching_pursuit(**(given | arguments))
