"""One short training: from the rows of one initializer, with one seed."""

from __future__ import annotations

import gc
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor
from transformers.utils import logging as transformers_logging
from typing_extensions import override

from lightning_vocab.callbacks.phase import derive_phase
from lightning_vocab.initializers import Coverage, Initializer, RowContext
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.probing.candidates import Candidate
from lightning_vocab.probing.recipe import Recipe, ShortFit
from lightning_vocab.probing.scores import DocumentScores, score_documents


@dataclass(frozen=True, eq=False)
class Trial:
    """What one short training gave.

    Args:
        label: The initializer.
        repeat: Which of the repeats, from 0.
        start: Scores before the first step, by source.
        end: Scores after the last step, by source.
        seconds: CPU seconds that making the rows took.
        coverage: What the method could do itself; None where it does all tokens by its nature.
        phase: What trained at the last step.
    """

    label: str
    repeat: int
    start: dict[str, DocumentScores]
    end: dict[str, DocumentScores]
    seconds: float
    coverage: Coverage | None
    phase: str


def check_fit(recipe: Recipe, candidate: Candidate, on: str | None) -> str:
    """Refuse a recipe on which nothing can be compared, before anything is built or trained.

    Args:
        recipe: The recipe.
        candidate: One of the initializers.
        on: The validation source that ranks; the first if None.

    Returns:
        The name of that source.

    Raises:
        ValueError: If the recipe has no new tokens, no text to train or validate on or no such
            source, or wants several processes.
    """
    with quiet():
        fit = recipe.build(candidate, 0)
        trainer = fit.trainer()
    if fit.module.hparams["expansion_dir"] is None:
        raise ValueError(
            f"{recipe.path!r} has no new tokens: expected model.expansion_dir, without which there "
            "are no rows to start."
        )
    if trainer.world_size != 1:
        raise ValueError(
            f"{recipe.path!r} asks for {trainer.world_size} processes, but a probe compares "
            "documents in one: add --override trainer.devices=1 trainer.strategy=auto "
            "trainer.num_nodes=1."
        )
    if not fit.data.plan.train:
        raise ValueError(f"{recipe.path!r} has no text to train on: expected data.train.")
    names = fit.data.val_names
    if not names:
        raise ValueError(
            f"{recipe.path!r} has no text to validate on: expected data.val, on which initializers "
            "are ranked."
        )
    if on is not None and on not in names:
        raise ValueError(f"Expected --on to be one of {', '.join(names)}, got {on!r}.")
    return names[0] if on is None else on


def run_trial(recipe: Recipe, candidate: Candidate, repeat: int) -> Trial:
    """Train for the recipe's short number of steps, and score before and after.

    Args:
        recipe: The recipe.
        candidate: The initializer.
        repeat: Which of the repeats, from 0; added to the seeds.

    Raises:
        ValueError: If the initializer cannot make the rows, the recipe cannot be trained, or the
            training ends too early.
    """
    with quiet():
        fit = recipe.build(candidate, repeat)
        seed_everything(fit.seed, verbose=False)
        assert fit.module.initializer is not None, "Recipe.build gives the candidate"
        timed = Timed(fit.module.initializer)
        fit.module.initializer = timed
        ends = _ScoredEnds(fit)
        try:
            trainer = fit.trainer(ends)
            trainer.fit(fit.module, datamodule=fit.data)
        except MisconfigurationException as error:
            raise ValueError(f"{recipe.path!r} cannot be trained: {error}") from error
    if trainer.global_step != recipe.steps:
        raise ValueError(
            f"The training from {candidate.label} ended after {trainer.global_step} of "
            f"{recipe.steps} steps: it was interrupted, or the recipe limits it."
        )
    trial = Trial(
        candidate.label,
        repeat,
        start=ends.scores[0],
        end=ends.scores[1],
        seconds=timed.seconds,
        coverage=getattr(timed.initializer, "coverage", None),
        phase=ends.phase,
    )
    del fit, trainer, ends
    gc.collect()  # module and Trainer hold each other: the next model needs the room
    return trial


class _ScoredEnds(Callback):
    """Scores every document before the first step and after the last."""

    def __init__(self, fit: ShortFit) -> None:
        self.data = fit.data
        self.scores: list[dict[str, DocumentScores]] = []
        self.phase = ""

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._score(pl_module)

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.phase = derive_phase(trainer)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._score(pl_module)

    def _score(self, module: LightningModule) -> None:
        assert isinstance(module, VocabExpansionModule)
        loaders = zip(self.data.val_names, self.data.val_dataloader(), strict=True)
        self.scores.append({name: score_documents(module, loader) for name, loader in loaders})


class Timed(Initializer):
    """Another initializer, with the CPU seconds that its rows took."""

    def __init__(self, initializer: Initializer) -> None:
        self.initializer = initializer
        self.seconds = 0.0

    @override
    def rows(self, context: RowContext) -> tuple[Tensor, Tensor | None]:
        began = time.process_time()
        made = self.initializer.rows(context)
        self.seconds += time.process_time() - began
        return made

    @override
    def bias(self, context: RowContext) -> Tensor:
        return self.initializer.bias(context)


@contextmanager
def quiet() -> Iterator[None]:
    """Without what Lightning and transformers say at each of many fits; warnings remain."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    has_bars = transformers_logging.is_progress_bar_enabled()
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)  # advice about speed
            # lightning 2.6.6 asks torch >= 2.13 in the old way (utilities/_pytree.py).
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"lightning\.")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if has_bars:
            transformers_logging.enable_progress_bar()
