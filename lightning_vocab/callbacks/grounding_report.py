"""One table at the end of a fit: what its steps did to the meaning of the new rows."""

from __future__ import annotations

import hashlib
from functools import cached_property
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
from lightning_vocab.callbacks.grounding_output import grounding_table, write_numbers
from lightning_vocab.callbacks.requirements import module_with_new_rows
from lightning_vocab.callbacks.spectrum_figure import can_draw
from lightning_vocab.distributed import refuse_sharded_strategy
from lightning_vocab.grounding.datamodule import GroundingDataModule
from lightning_vocab.grounding.diagnostics import Diagnostics
from lightning_vocab.grounding.judge import GroundingJudge, sampled
from lightning_vocab.grounding.pairs import Pair, read_pairs
from lightning_vocab.grounding.reference import DescribedTokens
from lightning_vocab.grounding.templates import Templates
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.vocabulary.whole_files import whole_file


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
        max_pairs: Of more pairs than this, a sample of so many is judged; a description of several
            tokens comes with all of them.
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
        self._judged: str | None = None
        self._pictures: dict[str, RowPicture] = {}
        self._judge: GroundingJudge | None = None

    @property
    @override
    def state_key(self) -> str:
        # Not the path: a run may be taken up where the same file lies elsewhere.
        return self._generate_state_key(pairs=self._content(), encoder=self.encoder)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a run in which there is nothing to judge."""
        if stage != "fit":
            return
        refuse_sharded_strategy(trainer, type(self).__name__)
        module_with_new_rows(pl_module, type(self).__name__)
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
        if is_resumed:
            self._check_judged(trainer, pl_module)
        self._judge = self._make_judge(trainer, pl_module, self._space if is_resumed else None)
        if is_resumed:
            return
        self._space, self._judged = self._judge.vectors, self._judge.described.fingerprint
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
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the report of a run that was killed after its last checkpoint and before this.

        With nothing left to train, Lightning calls no hook of the training, and has moved the
        module from its device.
        """
        if self._judge is None:
            pl_module.to(trainer.strategy.root_device)
            self.on_train_start(trainer, pl_module)
            self.on_train_end(trainer, pl_module)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the model."""
        self._judge = None

    def table(self) -> Table:
        """The report as a rich table."""
        return grounding_table(self.before, self.after)

    @override
    def state_dict(self) -> dict[str, Any]:
        """The first measurement and what it was made against."""
        drawn = {role: picture.state() for role, picture in self._pictures.items()}
        return {
            "before": dict(self.before),
            "space": self._space,
            "judged": self._judged,
            "pictures": drawn,
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the first measurement of the interrupted run."""
        self.before = dict(state_dict["before"])
        self._space = state_dict["space"]
        self._judged = state_dict["judged"]
        drawn = state_dict["pictures"].items()
        self._pictures = {role: RowPicture(**picture) for role, picture in drawn}

    # --- parts -----------------------------------------------------------------------------------

    def _content(self) -> str | None:
        """What tells the file of pairs from another; None without one of its own."""
        if self.pairs is None or not Path(self.pairs).expanduser().is_file():
            return self.pairs  # a missing file is refused by setup(), which says more
        return hashlib.sha256(repr(self._own_pairs).encode()).hexdigest()

    @cached_property
    def _own_pairs(self) -> tuple[Pair, ...]:
        assert self.pairs is not None, "asked before"
        return read_pairs(self.pairs, *self.fields)

    def _pairs_of(self, trainer: Trainer) -> tuple[Pair, ...]:
        data = getattr(trainer, "datamodule", None)
        if self.pairs is not None:
            return self._own_pairs
        if isinstance(data, GroundingDataModule):
            return data.pairs
        raise MisconfigurationException(
            "GroundingReport needs the pairs by which new rows are judged: give pairs, a file, or "
            f"fit on a GroundingDataModule. The data module is {type(data).__name__}."
        )

    def _check_judged(self, trainer: Trainer, module: VocabExpansionModule) -> None:
        """Make sure that the first rows were measured, and by the pairs given now."""
        if self._space is None:
            raise MisconfigurationException(
                "This run continues one that did not measure its first rows by these pairs, and "
                "they have moved since. Give GroundingReport, with the same pairs and encoder, "
                "from the start of a run."
            )
        assert module.expanded is not None, "setup() has seen it"
        pairs = sampled(self._pairs_of(trainer), self.max_pairs, self.seed)
        if DescribedTokens.of(pairs, module.expanded).fingerprint != self._judged:
            raise MisconfigurationException(
                "The first rows of this run were measured by other pairs, or by another sample of "
                "them, than GroundingReport has now, so before and after could not be compared. "
                "Resume with the same pairs, max_pairs and seed, or leave GroundingReport out."
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
        write_numbers(self.path, step, self.before, self.after)

    def _draw(self, found: Diagnostics) -> None:
        assert self._judge is not None, "on_train_start() has made it"
        assert self.figure is not None, "asked before"
        judge, shown = self._judge, shown_places(len(self._judge.places))
        after = pictures(found.spectra, judge.places[shown])
        figure = draw_grounding(self._pictures, after, judge.space, judge.vectors[shown])
        with whole_file(self.figure) as fresh:
            figure.savefig(fresh, format="png", dpi=110)


def _log(trainer: Trainer, numbers: dict[str, float]) -> None:
    found = {f"grounding/{name}": number for name, number in numbers.items()}
    trainer.callback_metrics.update({name: torch.tensor(value) for name, value in found.items()})
    # Not self.log: it reaches the loggers only every log_every_n_steps, and not at the start.
    for logger in trainer.loggers:
        logger.log_metrics(found, step=trainer.global_step)
