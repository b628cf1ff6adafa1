from __future__ import annotations

import json

import pytest

from lightning_vocab.initializers import FOCUS, Mean, SubwordMean
from lightning_vocab.initializers.spaces.base_model import BaseModelSpace
from lightning_vocab.probing.candidates import DEFAULTS, read_candidates
from tests.probing.planted import LOUD


def words(*values: object) -> list[str]:
    return [value if isinstance(value, str) else json.dumps(value) for value in values]


def test_defaults_need_nothing_from_outside_and_have_short_names() -> None:
    labels = [each.label for each in read_candidates(DEFAULTS)]
    assert labels == [
        "SubwordMean",
        "Mean",
        "ConvexHull",
        "Multivariate",
        "FOCUS(fallback=SubwordMean)",
    ]


def test_names_are_written_out_and_arguments_kept_where_they_are_no_defaults() -> None:
    given = {
        "class_path": "FOCUS",
        "init_args": {"temperature": 0.5, "pool": "all", "space": "BaseModelSpace"},
    }
    focus, loud = read_candidates(words(given, LOUD))
    assert focus.label == "FOCUS(space=BaseModelSpace, temperature=0.5)"
    assert focus.value["init_args"] == {
        "space": {"class_path": "lightning_vocab.initializers.spaces.BaseModelSpace"},
        "temperature": 0.5,
    }
    assert (loud.label, loud.value) == ("Loud", {"class_path": LOUD})


def test_the_recipes_own_stands_in_front_unless_it_is_among_them() -> None:
    own = {"class_path": "lightning_vocab.initializers.Mean", "init_args": {"noise": 0.3}}
    assert [each.label for each in read_candidates(["SubwordMean", "Mean"], own)] == [
        "SubwordMean",
        "Mean",
    ]
    own["init_args"] = {"noise": 0.5}
    assert [each.label for each in read_candidates(["SubwordMean"], own)] == [
        "Mean(noise=0.5)",
        "SubwordMean",
    ]


def test_what_stands_twice_is_told_apart() -> None:
    assert [each.label for each in read_candidates(["Mean"] * 3)] == [
        "Mean",
        "Mean (2)",
        "Mean (3)",
    ]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("Nothing", "'Nothing' names no initializer"),
        ("torch.nn.Linear", "names no initializer"),
        ("WECHSEL", "required: space"),
        ({"class_path": "Mean", "init_args": {"nose": 1}}, "'nose' is not accepted"),
        ({"class_path": "Mean", "init_args": {"noise": -1}}, "noise must be 0 or positive"),
        ("{no json", "names no initializer"),
    ],
)
def test_what_cannot_be_made_is_refused(word: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_candidates(words(word, "Mean"))


def test_one_alone_has_nothing_to_be_compared_with() -> None:
    with pytest.raises(ValueError, match="at least two initializers to compare, got Mean"):
        read_candidates(["Mean"])


def test_the_classes_of_the_defaults_are_the_packages() -> None:
    found = read_candidates(["SubwordMean", "Mean", DEFAULTS[-1]])
    assert [each.value["class_path"].rpartition(".")[2] for each in found] == [
        kind.__name__ for kind in (SubwordMean, Mean, FOCUS)
    ]
    assert isinstance(FOCUS(fallback=SubwordMean()).space, BaseModelSpace)
