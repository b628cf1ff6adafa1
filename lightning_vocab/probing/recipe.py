"""A recipe of `lightning-vocab fit`, read by its own parser and stripped down to a short fit."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pydoc import locate
from typing import Any

from jsonargparse import ArgumentError, Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser
from typing_extensions import override

from lightning_vocab.callbacks.phase import PhaseCallback
from lightning_vocab.cli import VocabCLI
from lightning_vocab.datamodule import VocabDataModule
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.probing.candidates import Candidate

_QUIET = {
    "max_epochs": -1,
    "min_epochs": None,
    "min_steps": None,
    "max_time": None,
    "fast_dev_run": False,
    "barebones": False,
    "logger": False,
    "profiler": None,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}
_NO_VALIDATION = {
    "limit_val_batches": 0,
    "val_check_interval": None,
    "check_val_every_n_epoch": 1,
}


@dataclass(frozen=True)
class ShortFit:
    """Everything that one short training needs, fresh.

    Args:
        module: The module, whose model is not built yet.
        data: The data module.
        callbacks: The recipe's callbacks that decide what trains.
        options: The other arguments of the Trainer.
        seed: Seed of everything else that draws numbers.
    """

    module: VocabExpansionModule
    data: VocabDataModule
    callbacks: list[Callback]
    options: dict[str, Any]
    seed: int

    def trainer(self, *callbacks: Callback) -> Trainer:
        """The Trainer, with more callbacks behind those of the recipe.

        Args:
            callbacks: What else is to be called.
        """
        return Trainer(**self.options, callbacks=[*self.callbacks, *callbacks])


class Recipe:
    """What `lightning-vocab fit --config FILE` would run, cut down for a probe.

    Model, text, optimizer, schedule, precision and phases are the recipe's. Of its callbacks only
    those that decide what trains are kept (`FreezeBackbone`, `UnfreezeAt`, `GradMaskNewRows`);
    loggers, checkpoints, exports and reports are never made. Validation inside the fit is off,
    unless an `UnfreezeAt` waits for a metric.

    Args:
        path: The recipe.
        overrides: ``key=value`` each, as ``--key=value`` behind it on the command line.
        steps: Optimizer steps of a short fit.

    Raises:
        ValueError: If the file is missing or no recipe of ``fit``, or a word is no override.
    """

    def __init__(self, path: str, overrides: Sequence[str] = (), steps: int = 50) -> None:
        if odd := [word for word in overrides if "=" not in word or word.startswith("-")]:
            raise ValueError(f"Expected overrides such as data.batch_size=4, got {odd}.")
        args = [f"--config={path}", *(f"--{word}" for word in overrides)]
        try:
            reader = _Reader(args)
        except (ArgumentError, OSError) as error:
            raise ValueError(f"{path!r} is no recipe that fit takes: {error}") from error
        self.path = path
        self.steps = steps
        self._parser = reader.parser
        self._config: Namespace = reader.config
        self.left_out = [each.class_path for each in self._callbacks if not _decides(each)]
        """Callbacks of the recipe that have no part in a probe, by class."""

    @property
    def initializer(self) -> dict[str, Any] | None:
        """The recipe's own initializer as ``class_path`` and ``init_args``, or None."""
        given = self._config.model.initializer
        return None if given is None else given.as_dict()

    @property
    def ckpt_path(self) -> str | None:
        """The checkpoint from which ``fit`` would go on; a probe starts from the base."""
        path: str | None = self._config.ckpt_path
        return path

    def build(self, candidate: Candidate, repeat: int) -> ShortFit:
        """Fresh objects for one short training.

        Args:
            candidate: The initializer.
            repeat: Added to the recipe's seeds: of the rows, of the order of the text, and of
                everything else.
        """
        config = deepcopy(self._config)
        kept = [each for each in self._callbacks if _decides(each)]
        is_monitored = any(each.get("init_args.monitor") for each in kept)
        options = {**_QUIET, **({} if is_monitored else _NO_VALIDATION), "max_steps": self.steps}
        for name, value in options.items():
            config.trainer[name] = value
        config.trainer.callbacks = deepcopy(kept)
        config.model.initializer = candidate.namespace()
        config.model.initializer_seed += repeat
        config.data.seed += repeat
        made = self._parser.instantiate_classes(config)
        callbacks = made.trainer.pop("callbacks")
        seed = 7 if isinstance(config.seed_everything, bool) else config.seed_everything
        return ShortFit(made.model, made.data, callbacks, made.trainer.as_dict(), seed + repeat)

    @property
    def _callbacks(self) -> list[Namespace]:
        found = self._config.trainer.callbacks or []
        return found if isinstance(found, list) else [found]


class _Reader(VocabCLI):
    """The command line of ``fit``, read and not run."""

    def __init__(self, args: list[str]) -> None:
        super().__init__(
            VocabExpansionModule,
            VocabDataModule,
            args=args,
            run=False,
            save_config_callback=None,
            seed_everything_default=7,
            parser_kwargs={"exit_on_error": False},
            auto_configure_optimizers=False,
            # Else hyperparameters are those of this reading, whatever is made of it afterwards.
            load_from_checkpoint_support=False,
        )

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        # A recipe may say what Trainer.fit takes, such as ckpt_path.
        parser.add_method_arguments(Trainer, "fit", skip=set(self.subcommands()["fit"]))

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        # Lightning's own form warns where sys.argv has words too, as it has in a command.
        self.config = parser.parse_args(args)  # type: ignore[arg-type]  # a list of words

    @override
    def instantiate_classes(self) -> None:
        """Nothing: a probe makes its own objects, again and again."""


def _decides(callback: Namespace) -> bool:
    """Whether a callback of a recipe decides what trains."""
    found = locate(callback.class_path)
    return isinstance(found, type) and issubclass(found, PhaseCallback)
