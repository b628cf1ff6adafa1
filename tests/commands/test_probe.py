from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_vocab.cli import main
from lightning_vocab.probing.recipe import Recipe
from tests.conftest import NEW_TEXTS
from tests.probing.planted import LOUD, write_recipe, write_texts

pytestmark = pytest.mark.slow

# One method under two names: Multivariate is Mean with noise 1.
TWINS = ["Multivariate", '{"class_path": "Mean", "init_args": {"noise": 1.0}}']


def probe(recipe: Path, *words: str) -> None:
    main(["probe", "--config", str(recipe), *words])


@pytest.fixture(scope="module")
def probed(tied_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which three initializers were probed, two of them the same."""
    folder = tmp_path_factory.mktemp("probed")
    recipe = write_recipe(tied_folder, folder)
    words = ["--steps", "3", "--seeds", "2", "--override", "data.batch_size=3"]
    outputs = ["--out", str(folder / "chosen.yaml"), "--json", str(folder / "probe.json")]
    probe(recipe, "--initializers", *TWINS, LOUD, *words, *outputs)
    return folder


def test_the_planted_bad_one_is_worse_and_the_same_one_twice_is_noise(probed: Path) -> None:
    told: Any = json.loads((probed / "probe.json").read_text())
    best, twin, loud = told["initializers"]
    assert (best["label"], best["verdict"]) == ("Multivariate", "best")
    assert twin["label"] == "Mean(noise=1.0)"
    assert (twin["difference"], twin["interval"], twin["verdict"]) == (0.0, [0.0, 0.0], "noise")
    assert (loud["label"], loud["verdict"]) == ("Loud", "worse")
    assert loud["interval"][0] > 0.1
    assert told["as_good"] is None  # the best is the cheapest, too
    assert told["num_documents"] == 6
    assert {each["phase"] for each in told["initializers"]} == {"full"}  # the recipe's step 2


def test_all_sources_are_scored_before_and_after_and_training_has_helped(probed: Path) -> None:
    told: Any = json.loads((probed / "probe.json").read_text())
    for each in told["initializers"]:
        scores = each["bits_per_byte_of_each_seed"]
        assert {tuple(scores[when]) for when in ("start", "end")} == {("new", "old")}
        assert len(set(scores["start"]["new"])) == (1 if each["label"] == "Loud" else 2)
        assert len(set(scores["end"]["new"])) == 2
    best = told["initializers"][0]["bits_per_byte_of_each_seed"]
    assert all(end < start for start, end in zip(*(best[k]["new"] for k in best), strict=True))


def test_the_new_recipe_has_the_winner_and_is_otherwise_the_old_one(probed: Path) -> None:
    old, new = ((probed / f"{name}.yaml").read_text() for name in ("recipe", "chosen"))
    added = [line for line in new.splitlines() if line not in old.splitlines()]
    assert added[-2:] == [
        "  initializer:",
        "    class_path: lightning_vocab.initializers.Multivariate",
    ]
    assert all(line.startswith("# ") for line in added[:-2])
    remarks = " ".join(line.removeprefix("# ") for line in added[:-2])
    assert "chosen by `lightning-vocab probe` with --seeds 2. Multivariate:" in remarks
    assert "of new after 3 steps, the best of 3." in remarks
    assert remarks.endswith("Probed with data.batch_size=3.")
    assert [line for line in new.splitlines() if line not in added] == old.splitlines()


def test_fit_reads_the_new_recipe_as_the_old_one_with_the_winner(probed: Path) -> None:
    old, new = (Recipe(str(probed / f"{name}.yaml")) for name in ("recipe", "chosen"))
    assert new.initializer == {"class_path": "lightning_vocab.initializers.Multivariate"}
    old_config, new_config = (each._config.clone() for each in (old, new))
    for config in (old_config, new_config):
        config.model.pop("initializer")
        config.pop("config")  # the file's own name
    assert new_config == old_config


def test_nothing_but_the_expansion_and_the_cache_is_written_beside_the_outputs(
    probed: Path,
) -> None:
    inputs = {"recipe.yaml", "train.jsonl", "new.jsonl", "old.jsonl"}
    outputs = {"chosen.yaml", "probe.json"}
    found = {each.name for each in probed.iterdir()} - inputs - outputs
    assert found == {"expansion", "cache"}


def test_a_file_that_stands_there_is_left_before_any_work_is_done(
    probed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (probed / "chosen.yaml").read_bytes()
    with pytest.raises(SystemExit, match="2"):
        probe(probed / "recipe.yaml", "--out", str(probed / "chosen.yaml"))
    captured = capsys.readouterr()
    assert "say --overwrite=true" in captured.err
    assert "seed 1 of" not in captured.out
    assert (probed / "chosen.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "changes", "message"),
    [
        (["--steps", "0"], {}, "--steps and --seeds of at least 1, got 0 and 3"),
        (["--seeds", "0"], {}, "--steps and --seeds of at least 1, got 50 and 0"),
        (["--initializers", "Nothing", "Mean"], {}, "'Nothing' names no initializer"),
        (["--initializers", "Mean"], {}, "at least two initializers"),
        (["--override", "data.val=null"], {}, "no text to validate on"),
        (["--on", "other"], {}, "--on to be one of new, old"),
        (["--override", "trainer.devices=2"], {}, "asks for 2 processes"),
        (["--out", "no/folder/new.yaml"], {}, "does not exist"),
        (["--out", "OUT"], {"model": "nothing"}, "no recipe that fit takes"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_built(
    words: list[str],
    changes: dict[str, Any],
    message: str,
    tied_folder: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = write_recipe(tied_folder, tmp_path, **changes)
    words = [str(tmp_path / "out.yaml") if word == "OUT" else word for word in words]
    with pytest.raises(SystemExit, match="2"):
        probe(recipe, *words)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "expansion").exists()
    assert not (tmp_path / "out.yaml").exists()


def test_a_recipe_that_cannot_be_rewritten_is_refused_before_anything_is_built(
    tied_folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tied_folder, tmp_path)
    recipe.write_text(json.dumps(yaml.safe_load(recipe.read_text())))
    with pytest.raises(SystemExit, match="2"):
        probe(recipe, "--out", str(tmp_path / "out.yaml"))
    assert "got JSON" in capsys.readouterr().err
    assert not (tmp_path / "expansion").exists()


def test_a_missing_recipe_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        probe(tmp_path / "none.yaml")
    with pytest.raises(SystemExit, match="2"):
        main(["probe"])
    said = capsys.readouterr().err
    assert "does not exist" in said
    assert "Expected a recipe of fit: --config FILE." in said


def test_defaults_and_the_recipes_own_are_probed_where_none_is_named(
    base_folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {"class_path": "lightning_vocab.initializers.Normal"}
    recipe = write_recipe(base_folder, tmp_path, model__initializer=own)
    write_texts(tmp_path)
    (tmp_path / "new.jsonl").write_text(json.dumps({"text": NEW_TEXTS[0]}))
    out = tmp_path / "out.yaml"
    probe(recipe, "--steps", "1", "--seeds", "1", "--out", str(out))
    said = " ".join(capsys.readouterr().out.split())
    for name in ("Normal", "SubwordMean", "Mean", "ConvexHull", "Multivariate", "FOCUS"):
        assert f"{name}" in said
    assert "Fewer than 5 documents" in said
    assert "One seed" in said
    assert "initializer:" in out.read_text()
