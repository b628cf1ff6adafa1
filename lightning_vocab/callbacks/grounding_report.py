"""One table at the end of a fit: what its steps did to the meaning of the new rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from rich.console import Console
from rich.table import Table
from torch import Tensor
from typing_extensions import override

from lightning_vocab.callbacks.grounding_figure import (
    RowPicture,
    draw_grounding,
    pictures,
    shown_places,
)
from lightning_vocab.callbacks.spectrum_figure import can_draw
from lightning_vocab.distributed import refuse_sharded_strategy
from lightning_vocab.grounding.datamodule import GroundingDataModule
from lightning_vocab.grounding.diagnostics import Diagnostics
from lightning_vocab.grounding.judge import GroundingJudge
from lightning_vocab.grounding.pairs import Pair, read_pairs
from lightning_vocab.grounding.templates import Templates
from lightning_vocab.module import VocabExpansionModule


class GroundingReport(Callback):
    """Measures what the new rows mean before the first step and after the last, and says both.

    With a `GroundingDataModule` the pairs are its own; in a later fit on text, give the file again
    and see what of their structure lasts. Each logger gets, under ``grounding/``, the numbers of
    `measure_grounding` at both times:

    - spectra of the new rows, as `EmbeddingSpectrumMonitor` logs them;
    - ``rsa_states_pearson_input``, ``rsa_states_spearman_input`` and the like: whether the rows lie
      to each other as the hidden states of their descriptions do, in the middle layer of the model
      as it is at the start of the fit (``rsa_encoder_…``: as an encoder's vectors do);
    - ``rsa_words_…``: the same with counts of the descriptions' words. States of the same model
      may favour rows made from its own pieces; words favour no model.
    - ``retrieval_top1_share``, ``retrieval_mean_reciprocal_rank``: whether the first template of
      descriptions finds the tokens among all new tokens (`retrieve`).

    The table shows old rows beside the new ones, as many where there are as many: ranks depend on
    the number of rows.

    Cost, twice a fit on every rank: the spectra, one pass of the sampled pairs through the model,
    and 8 million cosines for each space and matrix. A checkpoint carries the reference, four bytes
    a token and dimension.

    Args:
        path: A JSON file for the numbers; its folder is made. None writes none.
        pairs: A file of pairs, as `read_pairs` takes it. None takes those of the data module.
        token_field: Field or column of the tokens in that file.
        description_field: Field or column of the description in that file.
        to_tokens: Templates from description to tokens, of which the first is asked with; those of
            the data module if None, or the package's.
        encoder: Folder or hub id of an encoder whose vectors take the place of hidden states.
        figure: A PNG file for the spectra and cosines before and after; needs matplotlib.
        max_pairs: Of more pairs than this, a sample of so many is judged.
        seed: Seed of the samples of pairs and of old rows.

    Raises:
        ValueError: If ``max_pairs`` is below 3, or the file of pairs cannot be read.
        MisconfigurationException: At the start of `fit`, if there are no pairs or no expansion, or
            the strategy shards the rows.
    """

    def __init__(
        self,
        path: str | None = None,
        pairs: str | None = None,
        token_field: str = "token",
        description_field: str = "description",
        to_tokens: list[str] | None = None,
        encoder: str | None = None,
        figure: str | None = None,
        max_pairs: int = 4000,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if max_pairs < 3:
            raise ValueError(f"Three pairs are the fewest to compare, got max_pairs={max_pairs}.")
        self.path = path
        self.pairs = pairs
        self.fields = token_field, description_field
        self.to_tokens = to_tokens
        self.encoder = encoder
        self.figure = figure
        self.max_pairs = max_pairs
        self.seed = seed
        self.before: dict[str, float] = {}
        self.after: dict[str, float] = {}
        self._space: Tensor | None = None
        self._pictures: dict[str, RowPicture] = {}
        self._judge: GroundingJudge | None = None

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(pairs=self.pairs, encoder=self.encoder)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a run in which there is nothing to judge."""
        if stage != "fit":
            return
        refuse_sharded_strategy(trainer, type(self).__name__)
        if (
            not isinstance(pl_module, VocabExpansionModule)
            or pl_module.hparams["expansion_dir"] is None
        ):
            raise MisconfigurationException(
                "GroundingReport judges the new rows of a VocabExpansionModule with an expansion "
                f"(expansion_dir), got {type(pl_module).__name__}"
                f"{' without one' if isinstance(pl_module, VocabExpansionModule) else ''}."
            )
        self._pairs_of(trainer)
        if self.figure is not None and not can_draw():
            rank_zero_warn(
                f"GroundingReport draws no figure at {self.figure!r}: matplotlib is missing (pip "
                "install lightning-vocab[plots])."
            )

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the first rows, unless a resumed run has done so.

        Raises:
            MisconfigurationException: If a resumed run has no first measurement, or was given other
                pairs.
        """
        assert isinstance(pl_module, VocabExpansionModule), "setup() has seen it"
        is_resumed = trainer.global_step > 0
        if is_resumed and self._space is None:
            raise MisconfigurationException(
                "This run continues one that did not measure its first rows, and the rows have "
                "moved since. Give GroundingReport from the start of a run."
            )
        self._judge = self._make_judge(trainer, pl_module, self._space if is_resumed else None)
        self._space = self._judge.vectors
        if is_resumed:
            return
        found = self._judge.measure()
        self.before = found.numbers
        self._pictures = pictures(found.spectra, self._shown(found))
        _log(trainer, self.before)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the last rows, print the table, write the files."""
        assert self._judge is not None, "on_train_start() has made it"
        found = self._judge.measure()
        self.after = found.numbers
        _log(trainer, self.after)
        if not trainer.is_global_zero:
            return
        Console().print(self.table())
        self._write(trainer.global_step)
        if self.figure is not None and can_draw():
            self._draw(found)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the model."""
        self._judge = None

    def table(self) -> Table:
        """The report as a rich table."""
        table = Table(title="Grounding: the new rows before and after")
        table.add_column("measure")
        for title in ("before", "after", "old rows"):
            table.add_column(title, justify="right")
        for name, after in self.after.items():
            if "_num_" in name or ("_old_" in name and not name.startswith("nearest")):
                continue
            old = self.after.get(name.replace("_new_", "_old_")) if "_new_" in name else None
            cells = (self.before.get(name), after, old)
            table.add_row(_words(name), *("" if each is None else f"{each:.4f}" for each in cells))
        return table

    @override
    def state_dict(self) -> dict[str, Any]:
        """The first measurement and what it was made against."""
        drawn = {role: picture.state() for role, picture in self._pictures.items()}
        return {"before": dict(self.before), "space": self._space, "pictures": drawn}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the first measurement of the interrupted run."""
        self.before = dict(state_dict["before"])
        self._space = state_dict["space"]
        drawn = state_dict["pictures"].items()
        self._pictures = {role: RowPicture(**picture) for role, picture in drawn}

    # --- parts -----------------------------------------------------------------------------------

    def _pairs_of(self, trainer: Trainer) -> tuple[Pair, ...]:
        data = getattr(trainer, "datamodule", None)
        if self.pairs is not None:
            return read_pairs(self.pairs, *self.fields)
        if isinstance(data, GroundingDataModule):
            return data.pairs
        raise MisconfigurationException(
            "GroundingReport needs the pairs by which new rows are judged: give pairs, a file, or "
            f"fit on a GroundingDataModule. The data module is {type(data).__name__}."
        )

    def _make_judge(
        self, trainer: Trainer, module: VocabExpansionModule, space: Tensor | None
    ) -> GroundingJudge:
        data = getattr(trainer, "datamodule", None)
        templates, chat = Templates(), False
        if isinstance(data, GroundingDataModule):
            templates, chat = data.templates, bool(data.hparams["chat"])
        return GroundingJudge(
            module,
            self._pairs_of(trainer),
            templates if self.to_tokens is None else Templates.of(self.to_tokens),
            chat=chat,
            encoder=self.encoder,
            vectors=space,
            max_pairs=self.max_pairs,
            seed=self.seed,
        )

    def _shown(self, found: Diagnostics) -> Tensor:
        """Places of the rows to draw among all new rows, in the order of the pairs."""
        assert self._judge is not None, "on_train_start() has made it"
        return self._judge.places[shown_places(len(self._judge.places))]

    def _write(self, step: int) -> None:
        if self.path is None:
            return
        found = {"step": step, "before": _plain(self.before), "after": _plain(self.after)}
        text = json.dumps(found, indent=2, allow_nan=False)
        with whole_file(self.path) as partial:
            partial.write_text(text + "\n", encoding="utf-8")

    def _draw(self, found: Diagnostics) -> None:
        assert self._judge is not None, "on_train_start() has made it"
        assert self.figure is not None, "asked before"
        judge, shown = self._judge, shown_places(len(self._judge.places))
        after = pictures(found.spectra, judge.places[shown])
        figure = draw_grounding(self._pictures, after, judge.space, judge.vectors[shown])
        with whole_file(self.figure) as partial:
            figure.savefig(partial, format="png", dpi=110)


@contextmanager
def whole_file(path: str) -> Iterator[Path]:
    """A path to write to, beside ``path`` and renamed at the end: a reader sees all or nothing."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".partial")
    yield partial
    partial.replace(file)


def _log(trainer: Trainer, numbers: dict[str, float]) -> None:
    found = {f"grounding/{name}": number for name, number in numbers.items()}
    trainer.callback_metrics.update({name: torch.tensor(value) for name, value in found.items()})
    # Not self.log: it reaches the loggers only every log_every_n_steps, and not at the start.
    for logger in trainer.loggers:
        logger.log_metrics(found, step=trainer.global_step)


def _plain(numbers: dict[str, float]) -> dict[str, float | None]:
    """Numbers as JSON has them: it knows no nan."""
    return {name: number if math.isfinite(number) else None for name, number in numbers.items()}


def _words(name: str) -> str:
    return name.replace("_new_", "_").replace("rsa_", "RSA_").replace("_", " ")
