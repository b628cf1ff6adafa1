from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lightning_vocab.callbacks import FreezeBackbone, UnfreezeAt
from lightning_vocab.initializers import Mean, SubwordMean
from lightning_vocab.probing.candidates import read_candidates
from lightning_vocab.probing.recipe import Recipe
from lightning_vocab.probing.trials import check_fit
from tests.probing.planted import recipe, write_recipe

MEAN, SUBWORDS = read_candidates(["Mean", "SubwordMean"])
FREEZE = {"class_path": "lightning_vocab.callbacks.FreezeBackbone"}


def read(folder: Path, *overrides: str, **changes: Any) -> Recipe:
    return Recipe(str(write_recipe("demo", folder, **changes)), overrides, steps=5)


def test_only_callbacks_that_decide_what_trains_are_kept(tmp_path: Path) -> None:
    found = read(tmp_path)
    fit = found.build(MEAN, 0)
    assert [type(each) for each in fit.callbacks] == [FreezeBackbone, UnfreezeAt]
    assert [each.rpartition(".")[2] for each in found.left_out] == [
        "ExpansionReport",
        "ExportHuggingFace",
        "ModelCheckpoint",
    ]


def test_a_trainer_of_a_probe_logs_and_keeps_nothing_and_ends_after_the_steps(
    tmp_path: Path,
) -> None:
    changes = {"trainer__logger": True, "trainer__max_time": "00:01:00:00"}
    trainer = read(tmp_path, **changes).build(MEAN, 0).trainer()
    assert (trainer.max_steps, trainer.loggers, trainer.checkpoint_callbacks) == (5, [], [])
    assert trainer.limit_val_batches == 0


def test_validation_goes_on_where_a_phase_waits_for_a_metric(tmp_path: Path) -> None:
    waits = {
        "class_path": "lightning_vocab.callbacks.UnfreezeAt",
        "init_args": {"monitor": "val/bits_per_byte/new", "patience": 1},
    }
    changes = {"trainer__callbacks": [FREEZE, waits], "trainer__val_check_interval": 2}
    options = read(tmp_path, **changes).build(MEAN, 0).options
    assert options["val_check_interval"] == 2
    assert options["limit_val_batches"] is None


def test_repeats_have_seeds_of_their_own_and_the_rest_is_the_recipes(tmp_path: Path) -> None:
    changes = {"model__initializer_seed": 20, "data__seed": 30, "trainer__gradient_clip_val": 0.5}
    found = read(tmp_path, "data.batch_size=3", **changes)
    for repeat in (0, 2):
        fit = found.build(MEAN, repeat)
        assert fit.seed == 3 + repeat
        assert fit.module.hparams["initializer_seed"] == 20 + repeat
        assert fit.data.hparams["seed"] == 30 + repeat
        assert fit.data.hparams["batch_size"] == 3
        assert fit.options["gradient_clip_val"] == 0.5
        assert fit.module.hparams["lr_new_rows"] == 0.01
        assert isinstance(fit.module.initializer, Mean)


@pytest.mark.slow
def test_the_recipes_own_initializer_and_checkpoint_are_told(tmp_path: Path) -> None:
    own = {"class_path": "lightning_vocab.initializers.Mean", "init_args": {"noise": 0.1}}
    config = recipe("demo", tmp_path)["model"] | {"initializer": own}
    found = read(tmp_path, model=config, ckpt_path="last.ckpt")
    assert found.initializer == own
    assert found.ckpt_path == "last.ckpt"
    assert read(tmp_path).initializer is None
    assert isinstance(found.build(SUBWORDS, 0).module.initializer, SubwordMean)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.batch_sizes=3"], "no recipe that fit takes"),
        (["data.batch_size=many"], "no recipe that fit takes"),
        (["batch_size"], "Expected overrides such as"),
        (["--data.batch_size=3"], "Expected overrides such as"),
    ],
)
def test_overrides_that_fit_does_not_take_are_refused(
    overrides: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, *overrides)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "on", "message"),
    [
        ({"data__val": None}, None, "no text to validate on"),
        ({"data__train": None, "data__extend_on": "demo:code"}, None, "no text to train on"),
        ({"model__expansion_dir": None, "data__extender": None}, None, "no new tokens"),
        ({}, "neither", "--on to be one of new, old, got 'neither'"),
        ({"trainer__devices": 2, "trainer__strategy": "ddp_fork"}, None, "asks for 2 processes"),
    ],
)
def test_a_recipe_on_which_nothing_can_be_compared_is_refused(
    changes: dict[str, Any], on: str | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        check_fit(read(tmp_path, **changes), MEAN, on)


def test_the_first_validation_source_ranks_unless_another_is_named(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert check_fit(found, MEAN, None) == "new"
    assert check_fit(found, MEAN, "old") == "old"
    assert not (tmp_path / "expansion").exists()
