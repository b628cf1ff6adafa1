from __future__ import annotations

import csv
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,  # tensorboard ships no types
)
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast
from typing_extensions import override

from lightning_vocab.callbacks.spectrum import EmbeddingCollapseWarning, EmbeddingSpectrumMonitor
from lightning_vocab.functional import singular_values
from lightning_vocab.vocabulary.folder import save_expansion
from lightning_vocab.watched_rows import WatchedRows, watch
from tests.callbacks.modules import (
    BASE_ROWS,
    BATCHES_PER_EPOCH,
    NEW_IDS,
    NUM_ROWS,
    PicoModule,
    fit,
    fit_two_ranks,
    make_trainer,
    ordinary_model,
    split_model,
)
from tests.conftest import make_model
from tests.expanded import make_expanded


def monitor_for(*, split: bool, **options: Any) -> EmbeddingSpectrumMonitor:
    return EmbeddingSpectrumMonitor(new_ids=None if split else NEW_IDS, **options)


def fit_logged(
    folder: Path,
    monitor: EmbeddingSpectrumMonitor,
    logger: Any,
    *,
    tied: bool = True,
    **options: Any,
) -> None:
    """A fit whose own logging is rarer than that of the monitor."""
    options["log_every_n_steps"] = BATCHES_PER_EPOCH
    fit(folder, PicoModule(tied=tied), [monitor], logger=logger, **options)


def logged_steps(folder: Path) -> list[int]:
    """Steps at which the monitor's values stand in the file of a CSVLogger."""
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [int(row["step"]) for row in rows if row["spectrum/effective_rank_new_input"]]


def expected_numbers(new: Tensor, old: Tensor, role: str) -> dict[str, float]:
    """The statistics from torch's own singular values and all pairwise cosines."""
    numbers: dict[str, float] = {}
    for age, rows in (("new", new.double()), ("old", old.double())):
        values = torch.linalg.svdvals(rows)
        shares = values / values.sum()
        cosines = F.normalize(rows) @ F.normalize(rows).T
        pairs = cosines[~torch.eye(len(rows), dtype=torch.bool)]
        numbers[f"effective_rank_{age}_{role}"] = float((-shares * shares.log()).sum().exp())
        numbers[f"stable_rank_{age}_{role}"] = float(rows.square().sum() / values[0] ** 2)
        numbers[f"top1_share_{age}_{role}"] = float(shares[0])
        numbers[f"mean_pairwise_cosine_{age}_{role}"] = float(pairs.mean())
    norms = [rows.norm(dim=1).quantile(0.5) for rows in (new, old)]
    numbers[f"norm_ratio_{role}"] = float(norms[0] / norms[1])
    nearest = (F.normalize(new) @ F.normalize(old).T).amax(dim=1)
    numbers[f"nearest_old_cosine_{role}"] = float(nearest.mean())
    return numbers


class CollapsedModule(PicoModule):
    """All new rows are the same row, and frozen."""

    @override
    def configure_model(self) -> None:
        super().configure_model()
        new = self.model.get_input_embeddings().rows.new
        new.requires_grad_(False)
        new.copy_(new[0].clone())


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("split", [True, False], ids=["split", "ordinary"])
def test_last_values_are_those_of_the_rows_at_the_end(
    split: bool, tied: bool, tmp_path: Path
) -> None:
    monitor = monitor_for(split=split)
    module = PicoModule(split=split, tied=tied)
    fit(tmp_path, module, [monitor], max_steps=2)
    expected: dict[str, float] = {}
    for rows in watch(module.model, NEW_IDS, None, monitor.seed):
        expected |= expected_numbers(*rows.read(), rows.role)
    assert monitor.latest == pytest.approx({f"spectrum/{k}": v for k, v in expected.items()})


@pytest.mark.parametrize("split", [True, False], ids=["split", "ordinary"])
def test_untied_matrices_are_read_each_on_its_own(split: bool) -> None:
    model = (split_model if split else ordinary_model)(tied=False)
    watched = watch(model, NEW_IDS, None, seed=0)
    assert [rows.role for rows in watched] == ["input", "output"]
    for rows, part in zip(
        watched, (model.get_input_embeddings(), model.get_output_embeddings()), strict=True
    ):
        matrix = part.rows.merged()[0] if split else part.weight
        assert torch.equal(rows.read()[0], matrix[NEW_IDS])


@pytest.mark.parametrize("split", [True, False], ids=["split", "ordinary"])
def test_a_tied_matrix_is_watched_once(split: bool) -> None:
    model = (split_model if split else ordinary_model)(tied=True)
    assert [rows.role for rows in watch(model, NEW_IDS, None, seed=0)] == ["input"]


@pytest.mark.parametrize("split", [True, False], ids=["split", "ordinary"])
def test_the_sample_is_of_distinct_old_rows_that_have_a_token(split: bool) -> None:
    model = (split_model if split else ordinary_model)(tied=True)
    matrix = model.get_input_embeddings()
    whole = matrix.rows.merged()[0] if split else matrix.weight
    old_ids = [id for id in range(10) if id not in NEW_IDS]
    found = set()
    for seed in range(20):
        _, old = watch(model, NEW_IDS, 10, seed)[0].read()
        ids = [int((whole == row).all(dim=1).nonzero()) for row in old]
        assert len(set(ids)) == len(NEW_IDS)
        assert ids == sorted(ids)
        found.update(ids)
    assert found == set(old_ids)


def test_the_sample_stays_the_same_over_a_fit(tmp_path: Path) -> None:
    frozen = ["model.embed_tokens.rows.old"]
    monitor = EmbeddingSpectrumMonitor(every_n_steps=1)
    fit(tmp_path, PicoModule(frozen_by_user=frozen), [monitor], max_steps=3)
    key = "spectrum/effective_rank_old_input"
    assert monitor.latest[key] == monitor.first[key]
    assert monitor.latest["spectrum/norm_ratio_input"] != monitor.first["spectrum/norm_ratio_input"]


def test_old_rows_are_measured_again_only_once_they_are_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = split_model(tied=True)
    rows = model.get_input_embeddings().rows
    watched = watch(model, None, None, seed=0)[0]
    measured: list[Tensor] = []

    def spy(some: Tensor) -> Tensor:
        measured.append(some.clone())
        return singular_values(some)

    monkeypatch.setattr("lightning_vocab.watched_rows.singular_values", spy)
    first = watched.measure()
    with torch.no_grad():
        rows.new.mul_(2)
    assert watched.measure().numbers["norm_ratio_input"] == 2 * first.numbers["norm_ratio_input"]
    assert len(measured) == 3  # new, old, new
    rows.old.data[watched_id(rows.old, measured[1][0]), 0] += 1e-3  # no version counter sees it
    last = watched.measure().numbers
    assert torch.equal(measured[-1], watched.read()[1])
    assert last["effective_rank_old_input"] != first.numbers["effective_rank_old_input"]


def watched_id(matrix: Tensor, row: Tensor) -> int:
    return int((matrix == row).all(dim=1).nonzero())


def test_measured_at_the_start_every_n_steps_and_at_the_end(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="", version="")
    fit_logged(tmp_path, EmbeddingSpectrumMonitor(2), logger, max_steps=5)
    assert logged_steps(tmp_path) == [0, 2, 4, 5]


def test_accumulated_batches_count_as_one_step(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="", version="")
    monitor = EmbeddingSpectrumMonitor(1)
    fit_logged(tmp_path, monitor, logger, max_steps=4, accumulate_grad_batches=2)
    assert logged_steps(tmp_path) == [0, 1, 2, 3, 4]


def test_every_logger_gets_the_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_vocab.callbacks.spectrum.can_draw", lambda: False)  # slow
    loggers = [CSVLogger(tmp_path, name="", version=""), TensorBoardLogger(tmp_path / "tb")]
    monitor = EmbeddingSpectrumMonitor(2)
    fit_logged(tmp_path, monitor, loggers, max_steps=2)
    events = EventAccumulator(loggers[1].log_dir).Reload()
    assert logged_steps(tmp_path) == [0, 2]
    for name, value in monitor.latest.items():
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == [0, 2]
        assert scalars[-1].value == pytest.approx(value)


def test_callback_metrics_hold_the_last_values(tmp_path: Path) -> None:
    monitor = EmbeddingSpectrumMonitor(2)
    trainer = make_trainer(tmp_path, [monitor], max_steps=3)
    trainer.fit(PicoModule())
    assert {name: float(trainer.callback_metrics[name]) for name in monitor.latest} == (
        pytest.approx(monitor.latest)
    )


@pytest.mark.slow  # matplotlib builds its list of fonts
def test_tensorboard_gets_a_figure_of_each_matrix(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    fit_logged(tmp_path, EmbeddingSpectrumMonitor(), logger, tied=False, max_steps=1)
    images = EventAccumulator(logger.log_dir).Reload()
    assert images.Tags()["images"] == ["spectrum/input", "spectrum/output"]
    assert [image.step for image in images.Images("spectrum/output")] == [0, 1]


def test_without_matplotlib_there_are_values_and_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    logger = TensorBoardLogger(tmp_path)
    fit_logged(tmp_path, EmbeddingSpectrumMonitor(), logger, max_steps=1)
    tags = EventAccumulator(logger.log_dir).Reload().Tags()
    assert "spectrum/norm_ratio_input" in tags["scalars"]
    assert tags["images"] == []


def test_equal_rows_warn_once_while_they_stay_collapsed(tmp_path: Path) -> None:
    with pytest.warns(EmbeddingCollapseWarning, match="4 new input rows have collapsed") as caught:
        fit(tmp_path, CollapsedModule(), [EmbeddingSpectrumMonitor(1)], max_steps=3)
    assert sum(warning.category is EmbeddingCollapseWarning for warning in caught) == 1


def test_random_rows_do_not_warn(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", EmbeddingCollapseWarning)
        fit(tmp_path, PicoModule(tied=False), [EmbeddingSpectrumMonitor(1)], max_steps=2)


@pytest.mark.parametrize(
    ("threshold", "is_collapsed"),
    [
        ({"collapse_cosine": 0.9, "collapse_rank_ratio": 0.0}, True),
        ({"collapse_cosine": 1.0, "collapse_rank_ratio": 0.9}, True),
        ({"collapse_cosine": 1.0, "collapse_rank_ratio": 0.0}, False),
    ],
    ids=["cosine", "rank", "neither"],
)
def test_either_threshold_tells_a_collapse(
    threshold: dict[str, Any], is_collapsed: bool, tmp_path: Path
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(tmp_path, CollapsedModule(), [EmbeddingSpectrumMonitor(**threshold)], max_steps=1)
    categories = [warning.category for warning in caught]
    assert (EmbeddingCollapseWarning in categories) == is_collapsed


def test_values_of_the_start_survive_a_stop_and_resume(tmp_path: Path) -> None:
    begun = EmbeddingSpectrumMonitor(3)
    trainer = make_trainer(tmp_path, [begun], max_epochs=1, max_steps=-1)
    trainer.fit(PicoModule())
    path = tmp_path / "epoch.ckpt"
    trainer.save_checkpoint(path)
    torch.load(path, weights_only=True)
    resumed = EmbeddingSpectrumMonitor(3)
    fit(tmp_path, PicoModule(), [resumed], max_steps=7, ckpt_path=str(path))
    assert resumed.first == begun.first
    assert resumed.latest != begun.latest


def test_the_folder_names_the_new_rows_and_leaves_out_padded_ones(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    # 30 of 400 padded rows get a token; the other 370 must not be sampled.
    words = [f"<|{number}|>" for number in range(30)]
    expanded = make_expanded(tokenizer, words, base_rows=len(tokenizer) + 400)
    module = PicoModule()
    module.model = make_model(len(tokenizer) + 400).train()
    weight = module.model.get_input_embeddings().weight
    with torch.no_grad():
        weight[: len(tokenizer)] = 1.0  # rank one: the first token's rows are alike
    folder = save_expansion(expanded, tmp_path / "expansion")
    monitor = EmbeddingSpectrumMonitor(expansion_dir=str(folder))
    fit(tmp_path, module, [monitor], max_steps=1)
    assert monitor.first["spectrum/effective_rank_old_input"] == pytest.approx(1.0)
    new = weight[list(expanded.expansion.new_ids)].detach()
    assert monitor.latest["spectrum/top1_share_new_input"] == pytest.approx(
        expected_numbers(new, new, "input")["top1_share_new_input"]
    )


def test_the_attribute_chooses_among_several_models(tmp_path: Path) -> None:
    class Module(PicoModule):
        @override
        def configure_model(self) -> None:
            super().configure_model()
            self.teacher = make_model(BASE_ROWS).train()

    with pytest.raises(ValueError, match="Expected one causal language model"):
        fit(tmp_path, Module(), [EmbeddingSpectrumMonitor()], max_steps=1)
    monitor = EmbeddingSpectrumMonitor(attribute="model")
    fit(tmp_path, Module(), [monitor], max_steps=1)
    assert "spectrum/model/norm_ratio_input" in monitor.latest


@pytest.mark.parametrize(
    ("split", "new_ids", "message"),
    [
        (False, None, "Give new_ids or expansion_dir"),
        (False, [NUM_ROWS], f"a row for id {NUM_ROWS}"),
        (False, list(range(NUM_ROWS)), "all 43 rows are new"),
        (True, [40, 41, 42], "expected the 4 new ids"),
    ],
    ids=["no ids", "outside", "no old row", "other ids than the split"],
)
def test_ids_that_do_not_fit_are_refused(
    split: bool, new_ids: list[int] | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(MisconfigurationException, match=message):
        fit(tmp_path, PicoModule(split=split), [EmbeddingSpectrumMonitor(new_ids=new_ids)])


@pytest.mark.parametrize(
    "arguments",
    [
        {"every_n_steps": 0},
        {"new_ids": []},
        {"new_ids": [-1]},
        {"new_ids": [1], "expansion_dir": "folder"},
        {"collapse_cosine": 1.5},
        {"collapse_rank_ratio": -0.1},
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Expected"):
        EmbeddingSpectrumMonitor(**arguments)


@pytest.mark.slow
@pytest.mark.ddp
def test_two_ranks_log_each_value_once(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="", version="")
    options: dict[str, Any] = {
        "max_steps": 2,
        "logger": logger,
        "log_every_n_steps": BATCHES_PER_EPOCH,
    }
    fit_two_ranks(tmp_path, PicoModule(), [EmbeddingSpectrumMonitor(1)], **options)
    assert logged_steps(tmp_path) == [0, 1, 2]


def test_old_rows_of_zeros_stop_no_run() -> None:
    found = WatchedRows("input", lambda: (torch.ones(1, 4), torch.zeros(1, 4))).measure()
    assert found.numbers["norm_ratio_input"] == float("inf")
