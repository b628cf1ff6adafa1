"""The command line: Lightning's own subcommands and those of `lightning_vocab.commands`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from rich.console import Console
from rich.panel import Panel
from typing_extensions import override

from lightning_vocab.checkpoint_io import checkpoint_to_resume, write_whole_checkpoints
from lightning_vocab.commands import COMMANDS, find_command
from lightning_vocab.commands.frame import run_command
from lightning_vocab.datamodule import VocabDataModule
from lightning_vocab.module import VocabExpansionModule

STAGES = {
    "ground": (
        "Teach the new rows what their tokens mean, from pairs of tokens and descriptions.",
        ("lightning_vocab.module", "VocabExpansionModule"),
        ("lightning_vocab.grounding", "GroundingDataModule"),
    ),
    "distill": (
        "Teach the new rows to do what their pieces do, from snippets of text.",
        ("lightning_vocab.distillation", "DistillationModule"),
        ("lightning_vocab.distillation", "DistillationDataModule"),
    ),
}
"""Fits of their own before `fit`: name, summary, and where module and data module are found."""


class VocabCLI(LightningCLI):
    """A LightningCLI over `VocabExpansionModule` and `VocabDataModule`.

    The base and the expansion folder are given once, to the model, and linked to the data. A
    checkpoint gives weights and the state of the run, never hyperparameters: what the YAML and the
    command line say holds.

    Checkpoints are written whole (`WholeFileCheckpointIO`). ``--ckpt_path last`` is the newest
    whole one, whatever its name, so one command goes on with a run that was killed; where there is
    none yet, ``fit`` begins.
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

    @override
    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the Trainer, and let it write its checkpoints whole."""
        trainer = super().instantiate_trainer(**kwargs)
        write_whole_checkpoints(trainer)
        return trainer

    @override
    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        # Lightning's own `last` goes by name, takes a half file for a whole one, and does not look
        # into the folders of former starts (see `checkpoint_io`).
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        if kwargs.get("ckpt_path") == "last":
            newest = checkpoint_to_resume(self.trainer)
            if newest is None and subcommand != "fit":
                raise FileNotFoundError(
                    f"Expected a whole checkpoint for {subcommand} --ckpt_path last, found none: "
                    "give its path, or run fit first."
                )
            kwargs["ckpt_path"] = None if newest is None else str(newest)
        return kwargs

    def after_predict(self) -> None:
        """Print what the model wrote."""
        console = Console()
        for batch in self.trainer.predict_loop.predictions or []:
            for text in batch:
                console.print(Panel(text, title="continuation"), markup=False)


def with_subcommand(name: str) -> type[VocabCLI]:
    """`VocabCLI` with one subcommand alone: the parsers of the others take as long to build.

    Args:
        name: ``fit``, ``validate``, ``test`` or ``predict``.
    """

    class OneCLI(VocabCLI):
        @staticmethod
        @override
        def subcommands() -> dict[str, set[str]]:
            return {name: LightningCLI.subcommands()[name]}

    return OneCLI


def main(args: ArgsType = None) -> None:
    """Run the command line; `args` as in `sys.argv[1:]`, or that if None."""
    words = sys.argv[1:] if args is None else args
    given: Sequence[str] = words if isinstance(words, list | tuple) else []
    name = given[0] if given else ""
    if name in COMMANDS:
        status = run_command(find_command(name), given[1:], f"lightning-vocab {name}")
        if status:
            sys.exit(status)
    elif name in STAGES:
        module, data = (getattr(import_module(room), kind) for room, kind in STAGES[name][1:])
        cli = with_subcommand("fit")
        _run(cli, module, data, ["fit", *given[1:]], prog=f"lightning-vocab {name}")
    else:
        cli = with_subcommand(name) if name in LightningCLI.subcommands() else VocabCLI
        _run(cli, VocabExpansionModule, VocabDataModule, args)


def _run(
    cli: type[VocabCLI],
    module: type[Any],
    data: type[Any],
    args: ArgsType,
    *,
    prog: str = "lightning-vocab",
) -> None:
    summaries = {**COMMANDS, **{name: stage[0] for name, stage in STAGES.items()}}
    cli(
        module,
        data,
        args=args,
        seed_everything_default=7,
        save_config_kwargs={"overwrite": True},
        parser_kwargs={
            "prog": prog,
            "version": version("lightning-vocab"),
            "description": "Grow the vocabulary of a causal language model and train it. "
            + " ".join(f"`lightning-vocab {name}`: {said}" for name, said in summaries.items()),
        },
        auto_configure_optimizers=False,
    )
