"""The command line: Lightning's own subcommands and those of `lightning_vocab.commands`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version

from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from rich.console import Console
from rich.panel import Panel
from typing_extensions import override

from lightning_vocab.commands import COMMANDS, find_command
from lightning_vocab.commands.frame import run_command
from lightning_vocab.datamodule import VocabDataModule
from lightning_vocab.module import VocabExpansionModule


class VocabCLI(LightningCLI):
    """A LightningCLI over `VocabExpansionModule` and `VocabDataModule`.

    The base and the expansion folder are given once, to the model, and linked to the data. A
    checkpoint gives weights and the state of the run, never hyperparameters: what the YAML and the
    command line say holds.
    """

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link what must be equal."""
        parser.link_arguments("model.base", "data.base")
        parser.link_arguments("model.expansion_dir", "data.expansion_dir")

    @override
    def _parse_ckpt_path(self) -> None:
        # Lightning >= 2.5.5 lets the checkpoint's hyperparameters override YAML and command line
        # in silence (Lightning-AI/pytorch-lightning#21116). A learning rate given for a resumed run
        # must hold; a changed vocabulary is refused by the module itself.
        return

    def after_predict(self) -> None:
        """Print what the model wrote."""
        console = Console()
        for batch in self.trainer.predict_loop.predictions or []:
            for text in batch:
                console.print(Panel(text, title="continuation"), markup=False)


def main(args: ArgsType = None) -> None:
    """Run the command line; `args` as in `sys.argv[1:]`, or that if None."""
    given = sys.argv[1:] if args is None else args
    if isinstance(given, Sequence) and given and given[0] in COMMANDS:
        status = run_command(find_command(given[0]), given[1:], f"lightning-vocab {given[0]}")
        if status:
            sys.exit(status)
        return
    VocabCLI(
        VocabExpansionModule,
        VocabDataModule,
        args=args,
        seed_everything_default=7,
        save_config_kwargs={"overwrite": True},
        parser_kwargs={
            "prog": "lightning-vocab",
            "version": version("lightning-vocab"),
            "description": "Grow the vocabulary of a causal language model and train it. "
            + " ".join(f"`lightning-vocab {name}`: {said}" for name, said in COMMANDS.items()),
        },
        auto_configure_optimizers=False,
    )
