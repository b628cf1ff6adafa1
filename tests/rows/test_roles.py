from __future__ import annotations

import pytest
from torch import nn

from lightning_vocab.rows.roles import ParameterRoles, parameter_roles
from tests.callbacks.modules import ordinary_model, split_model

DECODER = 2 * 9 + 1  # two layers of 4 + 3 matrices and 2 norms, and the last norm


def names(model: nn.Module, parameters: tuple[nn.Parameter, ...]) -> list[str]:
    by_id = {id(parameter): name for name, parameter in model.named_parameters()}
    return [by_id[id(parameter)] for parameter in parameters]


def counts(roles: ParameterRoles) -> tuple[int, int, int, int]:
    return len(roles.new_rows), len(roles.old_rows), len(roles.embedding), len(roles.backbone)


def test_tied_split_rows_are_listed_once() -> None:
    model = split_model(tied=True)
    roles = parameter_roles(model)
    assert counts(roles) == (1, 1, 0, DECODER)
    assert names(model, roles.new_rows) == ["model.embed_tokens.rows.new"]
    assert names(model, roles.old_rows) == ["model.embed_tokens.rows.old"]


def test_untied_split_rows_include_the_head_and_its_bias() -> None:
    model = split_model(tied=False)
    roles = parameter_roles(model)
    assert counts(roles) == (3, 3, 0, DECODER)
    assert names(model, roles.new_rows) == [
        "model.embed_tokens.rows.new",
        "lm_head.rows.new",
        "lm_head.rows.new_bias",
    ]


@pytest.mark.parametrize(("tied", "count"), [(True, 1), (False, 3)], ids=["tied", "untied"])
def test_ordinary_model_has_one_embedding_role(tied: bool, count: int) -> None:
    assert counts(parameter_roles(ordinary_model(tied=tied))) == (0, 0, count, DECODER)


def test_roles_name_every_parameter_of_the_model_once() -> None:
    model = split_model(tied=False)
    listed = [id(parameter) for parameter in parameter_roles(model).everything()]
    assert sorted(listed) == sorted(id(parameter) for parameter in model.parameters())


def test_equal_values_do_not_make_one_parameter() -> None:
    model = split_model(tied=True)
    head_copy = nn.Parameter(model.get_input_embeddings().rows.old.detach().clone())
    model.register_parameter("copy", head_copy)
    roles = parameter_roles(model)
    assert any(parameter is head_copy for parameter in roles.backbone)
    assert all(parameter is not head_copy for parameter in roles.old_rows)


@pytest.mark.parametrize(
    ("phase", "masked", "expected"),
    [
        ("frozen", False, ["new_rows"]),
        ("embeddings", False, ["new_rows", "old_rows"]),
        ("embeddings", True, ["new_rows"]),
        ("full", False, ["backbone", "new_rows", "old_rows"]),
        ("full", True, ["backbone", "new_rows"]),
    ],
)
def test_phase_trains_its_roles(phase: str, masked: bool, expected: list[str]) -> None:
    roles = parameter_roles(split_model(tied=False))
    chosen = {id(p) for p in roles.in_phase(phase, old_rows_masked=masked)}  # type: ignore[arg-type]
    wanted = {id(p) for role in expected for p in getattr(roles, role)}
    assert chosen == wanted
