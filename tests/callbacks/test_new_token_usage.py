"""How often new rows are trained, and how far the model has adopted their tokens."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,  # tensorboard ships no types
)

from lightning_vocab.callbacks import FreezeBackbone, UnfreezeAt
from lightning_vocab.callbacks.new_token_usage import NewTokenUsage
from lightning_vocab.datamodule import VocabDataModule
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.rows import find_split
from tests.conftest import NEW_TEXTS, TEXTS, case
from tests.quiet import quiet_trainer

UNTIED_IS_QUICK = pytest.mark.parametrize(
    "base_folder",
    [case(True, quick=False, id="tied"), case(False, quick=True, id="untied")],
    indirect=True,
)


class Watch(Callback):
    """Notes the ids of every training batch and the rows before and after every step."""

    def __init__(self) -> None:
        self.batches: list[set[int]] = []
        self.rows: list[list[tuple[torch.Tensor, torch.Tensor]]] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        ids = torch.cat([batch["input_ids"].flatten(), batch["labels"].flatten()])
        self.batches.append(set(ids.tolist()))
        self.rows.append(rows_of(pl_module))


def rows_of(module: LightningModule) -> list[tuple[torch.Tensor, torch.Tensor]]:
    assert isinstance(module, VocabExpansionModule)
    split = find_split(module.language_model)
    assert split is not None
    unique = {id(part.rows): part.rows for part in split}.values()
    return [(part.new.detach().clone(), part.old.detach().clone()) for part in unique]


def written(place: Path) -> Path:
    """A folder with the text, beside which the tests keep its rows: they are cut once."""
    place.mkdir(exist_ok=True)
    for name, texts in (("train", NEW_TEXTS[:2] * 6), ("new", NEW_TEXTS), ("old", TEXTS)):
        lines = [json.dumps({"text": each}) for each in texts]
        if not (place / f"{name}.jsonl").exists():
            (place / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return place


def fit(
    place: Path,
    base: str,
    expansion: str,
    *callbacks: Callback,
    ckpt_path: str | None = None,
    **options: Any,
) -> tuple[Trainer, VocabExpansionModule, VocabDataModule]:
    text = written(place.parent / "text")
    data = VocabDataModule(
        base,
        expansion,
        train=str(text / "train.jsonl"),
        val={"new": str(text / "new.jsonl"), "old": str(text / "old.jsonl")},
        block_size=16,
        batch_size=2,
        cache_dir=str(text / "cache"),
    )
    module = VocabExpansionModule(base=base, expansion_dir=expansion, lr_new_rows=0.02)
    trainer = quiet_trainer(place, callbacks, **{"max_steps": 4, **options})
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return trainer, module, data


@UNTIED_IS_QUICK
def test_counts_and_movement_are_those_of_the_batches_and_steps(
    tmp_path: Path, base_folder: str, expansion_folder: str
) -> None:
    usage, watch = NewTokenUsage(every_n_steps=3, num_old_rows=10_000), Watch()
    freeze = [FreezeBackbone(), UnfreezeAt(step=2)]
    with pytest.warns(UserWarning, match="stood in no training batch"):
        _, module, _ = fit(tmp_path, base_folder, expansion_folder, *freeze, usage, watch)
    assert module.expanded is not None
    ids = module.expanded.expansion.new_ids
    expected = [sum(id in batch for batch in watch.batches) for id in ids]
    assert usage.batches_per_row.tolist() == expected
    assert usage.latest["usage/untouched_rows"] == expected.count(0) > 0
    before, after = watch.rows[2], watch.rows[3]  # the third of four steps was measured
    for place, name in enumerate(("new", "old")):
        moved = torch.cat([after[k][place] - before[k][place] for k in range(len(before))])
        assert usage.latest[f"usage/update_norm_{name}"] == pytest.approx(
            float(moved.square().sum(1).mean().sqrt()), rel=1e-4
        )
        assert usage.latest[f"usage/gradient_norm_{name}"] > 0


@UNTIED_IS_QUICK
def test_frozen_old_rows_have_no_gradient_and_do_not_move(
    tmp_path: Path, base_folder: str, expansion_folder: str
) -> None:
    usage = NewTokenUsage(every_n_steps=2)
    with pytest.warns(UserWarning, match="no training batch"):
        fit(tmp_path, base_folder, expansion_folder, FreezeBackbone(), usage)
    assert usage.latest["usage/gradient_norm_old"] == usage.latest["usage/update_norm_old"] == 0
    assert usage.latest["usage/gradient_norm_new"] > 0


@pytest.mark.slow
@UNTIED_IS_QUICK
def test_adoption_and_mass_are_those_of_the_model_s_own_logits(
    tmp_path: Path, base_folder: str, expansion_folder: str
) -> None:
    usage = NewTokenUsage(num_val_batches=99)
    with pytest.warns(UserWarning, match="no training batch"):
        _, module, data = fit(tmp_path, base_folder, expansion_folder, usage, max_steps=12)
    model = module.language_model.eval()
    new = torch.zeros(model.config.vocab_size, dtype=torch.bool)
    assert module.expanded is not None
    new[list(module.expanded.expansion.new_ids)] = True
    for name, loader in zip(data.val_names, data.val_dataloader(), strict=True):
        adopted, targets, mass = [], [], []
        for batch in loader:
            with torch.no_grad():
                logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            labels = batch["labels"][:, 1:]
            scored, probabilities = labels != -100, logits[:, :-1].softmax(-1)
            is_new = new[labels.clamp(min=0)] & scored
            adopted += new[logits[:, :-1].argmax(-1)][is_new].tolist()
            targets += is_new[scored].tolist()
            mass += probabilities[..., new].sum(-1)[scored].tolist()
        assert usage.latest[f"usage/new_token_mass/{name}"] == pytest.approx(
            sum(mass) / len(mass), rel=1e-4
        )
        share = sum(targets) / len(targets)
        assert usage.latest[f"usage/new_token_share/{name}"] == pytest.approx(share)
        if adopted:
            mean = sum(adopted) / len(adopted)
            assert usage.latest[f"usage/adoption/{name}"] == pytest.approx(mean)
    assert not math.isnan(usage.latest["usage/adoption/new"])


@pytest.mark.slow
@UNTIED_IS_QUICK
def test_a_resumed_run_goes_on_counting(
    tmp_path: Path, tied_folder: str, expansion_folder: str
) -> None:
    whole, first, second = NewTokenUsage(), NewTokenUsage(), NewTokenUsage()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(tmp_path, tied_folder, expansion_folder, whole)
        trainer, _, _ = fit(tmp_path, tied_folder, expansion_folder, first, max_steps=2)
        trainer.save_checkpoint(tmp_path / "half.ckpt")
        half = str(tmp_path / "half.ckpt")
        fit(tmp_path, tied_folder, expansion_folder, second, ckpt_path=half)
    assert first.batches_per_row.sum() < whole.batches_per_row.sum()
    assert second.batches_per_row.tolist() == whole.batches_per_row.tolist()
    assert {step for step, _ in second.history["usage/untouched_rows"]} == {2, 4}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*stood in no training batch")
@UNTIED_IS_QUICK
def test_a_second_fit_counts_anew_and_a_checkpoint_without_counts_is_named(
    tmp_path: Path, tied_folder: str, expansion_folder: str
) -> None:
    usage = NewTokenUsage()
    fit(tmp_path, tied_folder, expansion_folder, usage, max_steps=2)
    once = usage.batches_per_row.tolist()
    trainer, _, _ = fit(tmp_path, tied_folder, expansion_folder, usage, max_steps=2)
    assert usage.batches_per_row.tolist() == once
    trainer.callbacks.remove(usage)  # type: ignore[attr-defined]
    trainer.save_checkpoint(tmp_path / "bare.ckpt")
    bare = str(tmp_path / "bare.ckpt")
    with pytest.warns(UserWarning, match="step 2 holds no counts"):
        fit(tmp_path, tied_folder, expansion_folder, NewTokenUsage(), ckpt_path=bare)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*stood in no training batch")
@UNTIED_IS_QUICK
def test_the_end_lists_the_rarest_rows_with_the_text_of_their_tokens(
    tmp_path: Path, tied_folder: str, expansion_folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = NewTokenUsage(every_n_steps=1, max_rows=3)
    _, module, _ = fit(tmp_path, tied_folder, expansion_folder, usage)
    assert module.expanded is not None
    tokens = module.expanded.expansion.tokens
    rarest = [tokens[place] for place in usage.batches_per_row.argsort(stable=True)[:3].tolist()]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line.split("│")[1:3]] for line in lines]
    assert cells == [[str(token.id), repr(token.surface)] for token in rarest]


@pytest.mark.slow  # matplotlib builds its list of fonts
@pytest.mark.filterwarnings("ignore:.*stood in no training batch")
@UNTIED_IS_QUICK
def test_the_end_leaves_a_figure_beside_the_csv_and_in_tensorboard(
    tmp_path: Path, tied_folder: str, expansion_folder: str
) -> None:
    usage = NewTokenUsage(every_n_steps=1)
    board = TensorBoardLogger(tmp_path / "board")
    loggers = [CSVLogger(tmp_path / "log", name="", version=""), board]
    fit(tmp_path, tied_folder, expansion_folder, usage, logger=loggers, log_every_n_steps=1)
    assert [step for step, _ in usage.history["usage/gradient_norm_new"]] == [1, 2, 3, 4]
    assert (tmp_path / "log" / "new_token_usage.png").stat().st_size > 10_000
    images = EventAccumulator(board.log_dir).Reload()
    assert images.Tags()["images"] == ["usage/figure"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*stood in no training batch")
@UNTIED_IS_QUICK
def test_a_loss_that_is_not_streamed_is_said_to_have_no_adoption_once(
    tmp_path: Path, tied_folder: str, expansion_folder: str
) -> None:
    usage = NewTokenUsage()
    options: dict[str, Any] = {"val_check_interval": 2}
    with pytest.warns(UserWarning, match="measures no adoption") as caught:
        fit(tmp_path, tied_folder, expansion_folder, PlainLoss(), usage, **options)
    assert sum("no adoption" in str(each.message) for each in caught) == 1
    assert not any("adoption" in name or "mass" in name for name in usage.latest)


class PlainLoss(Callback):
    """Has the model scored by its own loss, as one is that cannot be streamed."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, VocabExpansionModule)
        pl_module.loss.is_streamed = False
        pl_module._loss_is_checked = True


@pytest.mark.slow
@pytest.mark.ddp
@UNTIED_IS_QUICK
def test_two_ranks_count_together(tmp_path: Path, tied_folder: str, expansion_folder: str) -> None:
    usage, watch, other = NewTokenUsage(), Watch(), Sum()
    options: dict[str, Any] = {"strategy": "ddp_fork", "devices": 2}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # given in the forked processes
        trainer, _, _ = fit(
            tmp_path, tied_folder, expansion_folder, usage, watch, other, max_steps=2, **options
        )
    # Callbacks live in the forked processes; the metrics come back.
    found = trainer.callback_metrics
    assert float(found["usage/untouched_rows"]) == float(found["expected_untouched"])


class Sum(Callback):
    """Counts untouched rows again, from the batches that the ranks have watched."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, VocabExpansionModule)
        assert pl_module.expanded is not None
        watch = next(each for each in trainer.callbacks if isinstance(each, Watch))  # type: ignore[attr-defined]
        seen = set().union(*watch.batches)
        own = torch.tensor([float(id in seen) for id in pl_module.expanded.expansion.new_ids])
        total = trainer.strategy.reduce(own, reduce_op="sum")
        assert isinstance(total, torch.Tensor)
        trainer.callback_metrics["expected_untouched"] = (total == 0).sum().float()


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 0, got 0, 4, 1024 and 10"):
        NewTokenUsage(every_n_steps=0)
