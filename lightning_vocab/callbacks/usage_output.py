"""What `NewTokenUsage` leaves at the end of a run: a table, and where its figure goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from lightning_vocab.vocabulary.expansion import NewToken
from lightning_vocab.vocabulary.whole_files import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE_NAME = "new_token_usage.png"
"""The file of the figure in the folder of a CSVLogger."""


def least_trained_table(tokens: Sequence[NewToken], counts: Tensor, max_rows: int) -> Table:
    """The new rows whose token stood in the fewest batches, the rarest first.

    Args:
        tokens: The new tokens, in order of id.
        counts: Batches that each stood in, ``(num_new,)``.
        max_rows: Lines of the table, at most.
    """
    table = Table(title=f"New rows least trained, of {len(tokens)}")
    table.add_column("id", justify="right")
    table.add_column("token")
    table.add_column("batches with it", justify="right")
    for place in counts.argsort(stable=True)[:max_rows].tolist():
        token = tokens[place]
        table.add_row(str(token.id), escape(repr(token.surface)), f"{int(counts[place]):,}")
    return table


def takes_figure(logger: Logger) -> bool:
    """Whether `add_usage_figure` has a place for the figure with this logger.

    Args:
        logger: A logger of the trainer.
    """
    return isinstance(logger, TensorBoardLogger | CSVLogger)


def add_usage_figure(trainer: Trainer, figure: Figure) -> None:
    """Give the figure to each TensorBoardLogger, and to each CSVLogger as a file in its folder.

    Args:
        trainer: The trainer, on its rank zero.
        figure: The figure.
    """
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure("usage/figure", figure, trainer.global_step)
        elif isinstance(logger, CSVLogger):
            with whole_file(str(Path(logger.log_dir) / FIGURE_NAME)) as fresh:
                figure.savefig(fresh, format="png")
