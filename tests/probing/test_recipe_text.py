from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lightning_vocab.probing.recipe_text import with_initializer
from tests.conftest import case

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
PLAIN: dict[str, Any] = {"class_path": "package.Plain"}
NESTED: dict[str, Any] = {
    "class_path": "package.Nested",
    "init_args": {
        "noise": 1e-05,
        "space": {"class_path": "package.Space", "init_args": {"corpus": ["a: b.txt", "แมว"]}},
        "copy": True,
        "on": None,
    },
}
FORMER = (
    "  initializer: package.Former  # why\n",
    "  initializer: {class_path: package.Former, init_args: {k: 1}}\n",
    "  initializer: null\n",
    "  initializer:\n",
    "  initializer: |\n    package.Former\n",
    "  'initializer':\n      class_path: package.Former\n      init_args:\n        k: 1\n",
    "  initializer:\n    class_path: package.Former\n    init_args:\n",
    "",
)


@pytest.mark.parametrize("value", [PLAIN, NESTED], ids=["plain", "nested"])
@pytest.mark.parametrize("former", FORMER)
def test_whatever_stood_there_the_rest_stays_sign_for_sign(
    former: str, value: dict[str, Any]
) -> None:
    before = "# head\nseed: 1  # one\n\nmodel:   # the model\n  base: demo\n"
    after = "\n  # about rates\n  lr: 1.0e-3\ndata: {a: [1,   2]}\n# end\n"
    made = with_initializer(before + former + after, value, ["chosen", "by a probe"])
    assert made.startswith(
        "# chosen\n# by a probe\n# head\nseed: 1  # one\n\nmodel:   # the model\n"
    )
    assert made.endswith(after)
    assert "  base: demo\n" in made
    loaded = yaml.safe_load(made)
    assert loaded["model"] == {"base": "demo", "initializer": value, "lr": 1e-3}
    assert "Former" not in made
    assert ("# why" in made) == ("# why" in former)


def test_a_model_on_one_line_stays_on_one_line() -> None:
    assert (
        with_initializer("model: {base: demo}\n", PLAIN, [])
        == "model: {initializer: {class_path: package.Plain}, base: demo}\n"
    )
    assert yaml.safe_load(with_initializer("model: {}", NESTED, [])) == {
        "model": {"initializer": NESTED}
    }


def test_a_mapping_of_several_lines_becomes_a_mapping_of_several_lines() -> None:
    text = "model:\n  initializer:\n    class_path: package.Former\n  lr: 1\n"
    value = {"class_path": "package.Plain", "init_args": {"noise": 0.5}}
    made = "    class_path: package.Plain\n    init_args: {noise: 0.5}\n"
    assert with_initializer(text, value, []) == f"model:\n  initializer:\n{made}  lr: 1\n"


def test_lines_end_as_they_did() -> None:
    text = "model:\r\n  base: demo\r\n  lr: 1\r\n"
    made = with_initializer(text, NESTED, ["chosen"])
    assert made.count("\n") == made.count("\r\n")


def test_a_value_that_is_merged_in_is_overridden_and_left_where_it_stands() -> None:
    text = "shared: &shared {initializer: a.Former, lr: 1}\nmodel:\n  <<: *shared\n"
    with pytest.raises(ValueError, match="without anchors"):
        with_initializer(text.replace("<<: *shared", "initializer: *shared"), PLAIN, [])
    made = yaml.safe_load(with_initializer(text, PLAIN, []))
    assert made["model"] == {"lr": 1, "initializer": PLAIN}
    assert made["shared"]["initializer"] == "a.Former"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model:\n  initializer: &it {class_path: a.B}\nother: *it\n", "without anchors"),
        ("model:\n  initializer: {class_path: a.B, k: &k 1}\nother: *k\n", "without anchors"),
        ("model:\n  initializer: !!map {class_path: a.B}\n", "without anchors"),
        ("seed: 1\n", "Expected a mapping `model`"),
        ("model: demo\n", "Expected a mapping `model`"),
        ('{"model": {"base": "demo"}}', "got JSON"),
        ("- model\n", "got JSON, or no mapping"),
        ("model: {base: demo\n", "no YAML that can be edited"),
        ("model: {base: demo}\nmodel.initializer: Mean\n", "as mappings below"),
        ("model:\n  base: demo\n  initializer.class_path: Mean\n", "as mappings below"),
    ],
)
def test_what_cannot_be_replaced_alone_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_initializer(text, PLAIN, [])


@pytest.mark.parametrize(
    "name",
    [
        case(path.name, quick=path.name in ("quickstart.yaml", "two_stage.yaml"))
        for path in sorted(RECIPES.glob("*.yaml"))
    ],
)
def test_in_the_projects_recipes_only_lines_are_added(name: str) -> None:
    text = (RECIPES / name).read_text(encoding="utf-8")
    made = with_initializer(text, NESTED, ["chosen"])
    left = iter(made.splitlines())
    former = yaml.safe_load(text)["model"].get("initializer")
    replaced = ["initializer:", *([former["class_path"]] if former else [])]
    kept = [line for line in text.splitlines() if not any(each in line for each in replaced)]
    assert all(line in left for line in kept)  # in their order
    assert yaml.safe_load(made)["model"].pop("initializer") == NESTED


SCALARS = st.one_of(
    st.booleans(),
    st.integers(-5, 5),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.none(),
)
NAMES = st.from_regex(r"[a-z_]{1,6}", fullmatch=True)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=5,
)
COMMENTS = st.sampled_from(["", "\n", "  # a remark: {\n", "# another\n\n", "   \n"])


@given(
    arguments=st.dictionaries(NAMES, VALUES, max_size=3),
    former=st.sampled_from(FORMER),
    other=st.dictionaries(NAMES.filter(lambda name: name != "model"), VALUES, max_size=3),
    comments=st.tuples(COMMENTS, COMMENTS, COMMENTS),
    has_margin=st.booleans(),
)
def test_any_value_goes_into_any_recipe_and_nothing_else_changes(
    arguments: dict[str, Any],
    former: str,
    other: dict[str, Any],
    comments: tuple[str, str, str],
    has_margin: bool,
) -> None:
    rest = yaml.safe_dump(other, allow_unicode=True) if other else ""
    lines = "  lr: 1\n" if has_margin or not former else ""
    text = f"{comments[0]}model:\n{lines}{comments[1]}{former}{comments[2]}{rest}"
    value = {"class_path": "package.Plain", **({"init_args": arguments} if arguments else {})}
    made = yaml.safe_load(with_initializer(text, value, ["chosen"]))
    expected = yaml.safe_load(text)
    expected["model"]["initializer"] = value
    assert made == expected
