"""Watch the geometry of the new rows while they train: EmbeddingSpectrumMonitor."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from lightning_vocab.callbacks.spectrum_figure import can_draw, draw_spectra
from lightning_vocab.distributed import refuse_sharded_strategy
from lightning_vocab.rows.locate import find_causal_lm
from lightning_vocab.vocabulary.folder import load_expansion
from lightning_vocab.watched_rows import RowSpectra, WatchedRows, watch


class EmbeddingCollapseWarning(UserWarning):
    """New rows point in nearly the same direction, or use few of the directions there are."""


class EmbeddingSpectrumMonitor(Callback):
    """Logs how many directions the new rows use, beside as many old rows, and warns on a collapse.

    Measured at the start of a fit, every so many optimizer steps and at the end. Each logger gets,
    under ``spectrum/`` (with attribute: ``spectrum/<attribute>/``), for the ``input`` matrix and,
    unless the model is tied, for the ``output`` matrix:

    - ``effective_rank_new_input``, ``effective_rank_old_input``: exp of the entropy of the
      normalised singular values (Roy and Vetterli 2007), and in the same way
    - ``stable_rank_…``: squared Frobenius norm over squared spectral norm,
    - ``top1_share_…``: largest singular value over the sum of all,
    - ``mean_pairwise_cosine_…``: mean cosine of two different rows (nan for a single row),
    - ``norm_ratio_input``: median norm of the new rows over that of the old rows,
    - ``nearest_old_cosine_input``: largest cosine of a new row to a sampled old row, mean over the
      new rows.

    ``old`` is a sample of as many old rows as there are new ones, drawn once; ranks depend on the
    number of rows, so only equal numbers compare. The step of a value is the number of optimizer
    steps done. The same values stand in ``trainer.callback_metrics``, in ``latest`` and, those of
    the start, in ``first``; a checkpoint carries both. Where matplotlib is installed, a
    TensorBoardLogger also gets a figure of the spectra and of some cosines.

    Cost of a measurement for ``m`` new rows of width ``d``, each matrix: ``m * d * n`` operations
    with ``n = min(m, d)`` and an eigenvalue problem of that size in float64, both twice while the
    old rows train, and ``2 * m * m * d`` float32 operations for the nearest rows. Memory: a copy of
    the sampled old rows, two matrices ``(n, n)`` and a block of cosines. Every rank measures.

    Args:
        every_n_steps: Number of optimizer steps from one measurement to the next.
        new_ids: Ids of the new rows. Known already where the rows are split.
        expansion_dir: Expansion folder whose manifest names the new ids, instead of new_ids, and
            keeps padded rows without a token out of the sample of old rows.
        attribute: Dotted name of the attribute that holds the causal language model. Needed only
            where the LightningModule holds several.
        collapse_cosine: Warn where the mean pairwise cosine of the new rows is above this.
        collapse_rank_ratio: Warn where the effective rank of the new rows is below this share of
            that of the sampled old rows.
        seed: Seed of the sample of old rows.

    Raises:
        ValueError: If both new_ids and expansion_dir are given, or a value is out of range; at the
            start of a fit, if the module does not hold one causal language model.
        MisconfigurationException: At the start of a fit, if there is no new row to watch or no old
            row to compare with, or the strategy shards the rows.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> monitor = EmbeddingSpectrumMonitor(every_n_steps=50, new_ids=[300, 301])
        >>> quiet = dict(logger=False, enable_checkpointing=False, accelerator="cpu")
        >>> trainer = Trainer(callbacks=[monitor], **quiet)
        >>> monitor.latest  # filled by fit
        {}
    """

    def __init__(
        self,
        every_n_steps: int = 100,
        new_ids: list[int] | None = None,
        expansion_dir: str | None = None,
        attribute: str | None = None,
        collapse_cosine: float = 0.9,
        collapse_rank_ratio: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if every_n_steps < 1:
            raise ValueError(f"Expected every_n_steps of at least 1, got {every_n_steps}.")
        if new_ids is not None and expansion_dir is not None:
            raise ValueError("Expected new_ids or expansion_dir, got both. Give one of them.")
        if new_ids is not None and (not new_ids or min(new_ids) < 0):
            raise ValueError(f"Expected at least one id, none below 0, got new_ids={new_ids}.")
        if not (0 <= collapse_cosine <= 1 and 0 <= collapse_rank_ratio <= 1):
            raise ValueError(
                "Expected collapse_cosine and collapse_rank_ratio from 0 to 1, got "
                f"{collapse_cosine} and {collapse_rank_ratio}."
            )
        self.every_n_steps = every_n_steps
        self.new_ids = new_ids
        self.expansion_dir = expansion_dir
        self.attribute = attribute
        self.collapse_cosine = collapse_cosine
        self.collapse_rank_ratio = collapse_rank_ratio
        self.seed = seed
        self.first: dict[str, float] = {}
        self.latest: dict[str, float] = {}
        self._watched: list[WatchedRows] = []
        self._collapsed: set[str] = set()
        self._measured_step = -1  # no step yet; 0 is the state before the first

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(attribute=self.attribute)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a strategy under which no rank sees whole rows."""
        if stage == "fit":
            refuse_sharded_strategy(trainer, type(self).__name__)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the rows, by now expanded and restored, and measure them."""
        model = find_causal_lm(pl_module, self.attribute)
        new_ids, base_len = self._given_ids()
        self._watched = watch(model, new_ids, base_len, self.seed)
        self._collapsed = set()
        self._measure(trainer)
        # A resumed run keeps the values that its first part began with.
        if trainer.global_step == 0 or not self.first:
            self.first = dict(self.latest)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure, once a step however many batches it accumulates."""
        if trainer.global_step % self.every_n_steps == 0:
            self._measure_once(trainer)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure what the run ends with."""
        self._measure_once(trainer)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the rows."""
        self._watched = []

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"first": dict(self.first), "latest": dict(self.latest)}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.first, self.latest = dict(state_dict["first"]), dict(state_dict["latest"])

    def _given_ids(self) -> tuple[list[int] | None, int | None]:
        """Ids of the new rows and length of the base tokenizer, each where the user gave it."""
        if self.expansion_dir is None:
            return self.new_ids, None
        expansion = load_expansion(self.expansion_dir).expansion
        return list(expansion.new_ids), expansion.base_len

    def _measure_once(self, trainer: Trainer) -> None:
        if trainer.global_step != self._measured_step:
            self._measure(trainer)

    def _measure(self, trainer: Trainer) -> None:
        spectra = [rows.measure() for rows in self._watched]
        group = "spectrum" if self.attribute is None else f"spectrum/{self.attribute}"
        self.latest = {
            f"{group}/{name}": number for part in spectra for name, number in part.numbers.items()
        }
        self._measured_step = trainer.global_step
        trainer.callback_metrics.update(
            {name: torch.tensor(number) for name, number in self.latest.items()}
        )
        # Not self.log: it reaches the loggers only every log_every_n_steps, and not at the start.
        for logger in trainer.loggers:
            logger.log_metrics(self.latest, step=trainer.global_step)
        for part in spectra:
            self._warn_of_collapse(part, trainer.global_step)
        if trainer.is_global_zero and can_draw():
            _add_figures(trainer, group, spectra)

    def _warn_of_collapse(self, part: RowSpectra, step: int) -> None:
        """Warn when a matrix enters the collapsed state, not while it stays there."""
        cosine = part.numbers[f"mean_pairwise_cosine_new_{part.role}"]
        rank = part.numbers[f"effective_rank_new_{part.role}"]
        old_rank = part.numbers[f"effective_rank_old_{part.role}"]
        if not (cosine > self.collapse_cosine or rank < self.collapse_rank_ratio * old_rank):
            self._collapsed.discard(part.role)
        elif part.role not in self._collapsed:
            self._collapsed.add(part.role)
            rank_zero_warn(
                f"The {len(part.new)} new {part.role} rows have collapsed at step {step}: "
                f"effective rank {rank:.1f} (old rows: {old_rank:.1f}), mean pairwise cosine "
                f"{cosine:.2f}. Rows so alike can hardly be told apart; initialise them from their "
                "pieces, or train them with a higher learning rate.",
                category=EmbeddingCollapseWarning,
            )


def _add_figures(trainer: Trainer, group: str, spectra: list[RowSpectra]) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            for part in spectra:
                logger.experiment.add_figure(
                    f"{group}/{part.role}", draw_spectra(part), trainer.global_step
                )
