"""One table at the end of a run: what the expansion cost and what it brought."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table
from typing_extensions import override

from lightning_vocab.callbacks.requirements import module_with_new_rows
from lightning_vocab.datamodule import VocabDataModule
from lightning_vocab.distributed import refuse_sharded_strategy
from lightning_vocab.functional import effective_rank, singular_values
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.rows import base_view, find_split
from lightning_vocab.vocabulary.whole_files import whole_file


@dataclass(frozen=True)
class ReportRow:
    """One line of the report.

    Args:
        name: What was measured, with its unit.
        before: The base model with its own tokenizer; None where there is nothing to measure.
        after: The expanded model at the end of the run.
        better: ``lower``, ``higher``, or empty where neither is.
    """

    name: str
    before: float | None
    after: float | None
    better: str = ""

    @property
    def change(self) -> float | None:
        """Relative change, or None where there is no before."""
        if self.before is None or self.after is None or self.before == 0:
            return None
        return self.after / self.before - 1


class ExpansionReport(Callback):
    """Measures the base before the first step and the expanded model at the end, and says both.

    Before: the base model with the base tokenizer, through the old rows alone, on every validation
    source; a base that has grown already is scored as it is. After: the expanded model with the
    grown tokenizer on the same documents. Tokens per byte and per word, bits per byte, new tokens
    in use, effective rank of the new rows at their first value and at the end. Needs a
    `VocabExpansionModule` with an expansion and a `VocabDataModule`.

    Cost: one pass over the validation text before training, and one at the end if the last
    validation was not after the last step.

    Args:
        path: A JSON file for the same numbers; its folder is made. None writes none.

    Raises:
        MisconfigurationException: At the start of `fit`, if there is nothing to compare.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = path
        self.rows: list[ReportRow] = []
        self._before: dict[str, float] = {}
        self._first_rank: dict[str, float] = {}
        self._validated_step = -1
        self._is_made = False

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a run in which there is nothing to compare."""
        self._is_made = False
        if stage == "fit":
            refuse_sharded_strategy(trainer, type(self).__name__)
            _parts(trainer, pl_module)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the base, unless a resumed run has done so.

        Raises:
            MisconfigurationException: If a resumed run has no measurement of its base, or has
                other validation sources.
        """
        module, data = _parts(trainer, pl_module)
        if trainer.global_step > 0:
            self._check_resumed(data.val_names)
            return
        self._before, self._validated_step = {}, -1
        with nullcontext() if module.is_base_grown else base_view(module.language_model):
            loaders = zip(data.val_names, data.base_val_dataloaders(), strict=True)
            for name, loader in loaders:
                self._before[name] = float(module.bits_per_byte(loader).compute())
        self._first_rank = _new_rows_rank(module)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember which step the validation belongs to."""
        if not trainer.sanity_checking:
            self._validated_step = trainer.global_step

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the expanded model, print the table, and write the file."""
        module, data = _parts(trainer, pl_module)
        after = self._after(trainer, module, data)
        self.rows = [
            *_fertility_rows(data.fertility()),
            *(
                ReportRow(f"bits per byte, {name}", self._before[name], value, "lower")
                for name, value in after.items()
            ),
            *(
                ReportRow(f"effective rank of new rows, {name}", self._first_rank[name], rank)
                for name, rank in _new_rows_rank(module).items()
            ),
        ]
        self._is_made = True
        if trainer.is_global_zero:
            Console().print(self.table())
            self._write()

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the report of a run that was killed after its last checkpoint and before this.

        With nothing left to train, Lightning calls no hook of the training, and has moved the
        module from its device.
        """
        if not self._is_made:
            pl_module.to(trainer.strategy.root_device)
            self.on_train_end(trainer, pl_module)

    def table(self) -> Table:
        """The report as a rich table."""
        table = Table(title="Vocabulary expansion: before and after")
        table.add_column("measure")
        for title in ("before", "after", "change"):
            table.add_column(title, justify="right")
        table.add_column("better")
        for row in self.rows:
            numbers = [_shown(row.before), _shown(row.after)]
            change = "" if row.change is None else f"{100 * row.change:+.1f} %"
            table.add_row(row.name, *numbers, change, row.better)
        return table

    @override
    def state_dict(self) -> dict[str, Any]:
        """The measurements of the base, so that a resumed run need not repeat them."""
        return {"before": dict(self._before), "first_rank": dict(self._first_rank)}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the measurements of the interrupted run."""
        self._before = dict(state_dict["before"])
        self._first_rank = dict(state_dict["first_rank"])

    def _check_resumed(self, names: list[str]) -> None:
        if sorted(self._before) != sorted(names):
            raise MisconfigurationException(
                f"This run continues one that measured its base on {sorted(self._before)}, and "
                f"validates on {sorted(names)}: the trained model cannot say what the base scored. "
                "Keep the validation sources, and give ExpansionReport from the start of a run."
            )

    def _after(
        self, trainer: Trainer, module: VocabExpansionModule, data: VocabDataModule
    ) -> dict[str, float]:
        limit = trainer.limit_val_batches
        is_whole = isinstance(limit, float) and limit == 1.0  # the int 1 is one batch, a part
        if is_whole and self._validated_step == trainer.global_step:
            logged = trainer.callback_metrics
            return {name: float(logged[f"val/bits_per_byte/{name}"]) for name in data.val_names}
        loaders = zip(data.val_names, data.val_dataloader(), strict=True)
        return {name: float(module.bits_per_byte(loader).compute()) for name, loader in loaders}

    def _write(self) -> None:
        if self.path is None:
            return
        rows = [asdict(row) | {"change": row.change} for row in self.rows]
        with whole_file(self.path) as fresh:
            fresh.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def _parts(
    trainer: Trainer, pl_module: LightningModule
) -> tuple[VocabExpansionModule, VocabDataModule]:
    module = module_with_new_rows(pl_module, "ExpansionReport")
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, VocabDataModule) or not data.val_names:
        raise MisconfigurationException(
            "ExpansionReport compares before and after on the validation sources of a "
            f"VocabDataModule, got {type(data).__name__} without any. Give data.val."
        )
    return module, data


@torch.no_grad()
def _new_rows_rank(module: VocabExpansionModule) -> dict[str, float]:
    split = find_split(module.language_model)
    assert split is not None, "setup() has seen the expansion"
    matrices = {"input": split[0].rows.new, "output": split[1].rows.new}
    if split[0].rows is split[1].rows:
        matrices = {"tied": split[0].rows.new}
    return {name: float(effective_rank(singular_values(rows))) for name, rows in matrices.items()}


def _fertility_rows(fertility: dict[str, Any]) -> list[ReportRow]:
    rows = []
    for source, numbers in fertility.items():
        before, after = numbers["before"], numbers["after"]
        for key in ("tokens_per_byte", "tokens_per_word"):
            name = f"{key.replace('_', ' ')}, {source}"
            if before[key] is not None:
                rows.append(ReportRow(name, before[key], after[key], "lower"))
        share = numbers["new_tokens_in_use_share"]
        if share is not None:
            rows.append(ReportRow(f"new tokens in use, {source}", None, share))
    return rows


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
