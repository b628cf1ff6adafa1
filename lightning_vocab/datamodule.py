"""A LightningDataModule that grows the vocabulary once and feeds text that is cut with it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import chain
from typing import Any, Literal, TypeAlias

from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from lightning_vocab.data.cache import KnownTokenizer, RowCache, cache_folder
from lightning_vocab.data.growing import grow, load_tokenizers
from lightning_vocab.data.loader import (
    Collation,
    ResumableLoader,
    check_counts,
    training_loader,
)
from lightning_vocab.data.plan import TextPlan
from lightning_vocab.data.prompts import prompt_loader
from lightning_vocab.data.ranks import from_first_rank
from lightning_vocab.data.rows import Collate
from lightning_vocab.data.run_data import RunDataModule
from lightning_vocab.data.sources import Role, TextSource, as_named_sources, as_sources, plain
from lightning_vocab.data.stream_loader import StreamLoader, batches_of_an_epoch, stream_loader
from lightning_vocab.data.tokenise import Layout, frame_of
from lightning_vocab.demo import resolve_base
from lightning_vocab.distributed import refuse_untested_strategy
from lightning_vocab.vocabulary.extender import Extender

Sources: TypeAlias = TextSource | str | list[TextSource | str]

_ROLES: dict[str | None, tuple[Role, ...]] = {
    None: ("train", "validation", "test"),
    "fit": ("train", "validation"),
    "validate": ("validation",),
    "test": ("test",),
    "predict": (),
}
_OBJECTS = {"self", "__class__", "extender", "overwrite_expansion"}


class VocabDataModule(RunDataModule):
    """Text for a model with a grown vocabulary: builds the expansion folder, tokenises, loads.

    `prepare_data` runs once on each node: it builds the expansion folder if there is an extender
    and the folder does not exist, and tokenises every source into ``cache_dir``; unchanged sources
    are not tokenised again. Training resumes in the middle of an epoch with the batches that were
    left. Validation scores every byte of every document exactly once, on any number of ranks.
    Rank zero alone measures the fertility.

    Batches hold ``input_ids``, ``attention_mask`` and ``labels`` ``(batch, time)``, not shifted
    and -100 where a token is no target; batches to validate and test on also ``num_bytes``
    ``(batch,)``.

    Args:
        base: ``demo``, a local Hugging Face folder, or a hub id: the base model's tokenizer.
        expansion_dir: The expansion folder. Without an extender it must exist. None trains with
            the base's own vocabulary.
        extender: Grows the tokenizer when the expansion folder does not exist; a folder that exists
            must have been made by the same extender from the same base and text. Text is the same
            by names and sizes of files and options of sources; text that was moved or touched
            draws a warning, and a folder without a note of its text (grown_on.json) is taken.
        train: Text to train on: a source, its path, or a list of them.
        val: Text to validate on, by name; the names appear in the keys of the log.
        test: Text to test on, by name.
        predict: Prompts to continue, or a source whose documents are prompts.
        extend_on: Text to grow the vocabulary on; the training text if None.
        block_size: Tokens of a row, at most the model's context.
        batch_size: Rows of a training batch on each device.
        val_batch_size: Rows of a validation, test or prediction batch on each device;
            ``batch_size`` if None.
        val_overlap: Tokens of context that each later window of a long validated document repeats;
            a quarter of ``block_size`` if None.
        layout: ``packed`` joins documents into full rows; ``padded`` starts each in a row of its
            own.
        num_proc: Processes that tokenise.
        num_workers: Processes that load batches, on each device.
        cache_dir: Folder of the tokenised text; ``lightning_vocab`` in the cache of `datasets` if
            None.
        seed: Seed of the order of the training rows.
        streaming: Whether text to train on is tokenised while it is read, and not kept. It begins
            again, in another order, when it is read out, so the Trainer needs ``max_steps`` (or a
            number of ``limit_train_batches``). Processes (ranks times workers) that divide the
            number of files read each once; else all read all, and each keeps some documents. Text
            to grow on is read whole once, and not kept either.
        shuffle_buffer: Documents of streamed text that each process holds and shuffles together.
        overwrite_expansion: Whether to replace an expansion folder that another extender or base
            made, or that was grown on other text.

    Raises:
        ValueError: If a size is too small, there is an extender but no expansion folder, or a
            name of a validation text is ``train`` or no plain word.

    Example:
        >>> data = VocabDataModule("demo", train="demo:code", val={"english": "demo:english"})
        >>> data.val_names, data.hparams["block_size"]
        (['english'], 256)
    """

    def __init__(
        self,
        base: str = "demo",
        expansion_dir: str | None = None,
        extender: Extender | None = None,
        train: Sources | None = None,
        val: dict[str, Sources] | None = None,
        test: dict[str, Sources] | None = None,
        predict: list[str] | TextSource | None = None,
        extend_on: Sources | None = None,
        block_size: int = 256,
        batch_size: int = 8,
        val_batch_size: int | None = None,
        val_overlap: int | None = None,
        layout: Literal["packed", "padded"] = "packed",
        num_proc: int = 1,
        num_workers: int = 0,
        cache_dir: str | None = None,
        seed: int = 7,
        streaming: bool = False,
        shuffle_buffer: int = 10_000,
        overwrite_expansion: bool = False,
    ) -> None:
        arguments = {name: plain(value) for name, value in locals().items() if name not in _OBJECTS}
        super().__init__()
        scored_batch_size = batch_size if val_batch_size is None else val_batch_size
        check_counts(batch_size, scored_batch_size, num_proc, num_workers, shuffle_buffer)
        if extender is not None and expansion_dir is None:
            raise ValueError("An extender needs a folder for what it builds: give expansion_dir.")
        # Plain values, so that checkpoints load with weights_only; the folder stands for the
        # extender that built it.
        self.save_hyperparameters(arguments, logger=False)
        self.extender = extender
        self.overwrite_expansion = overwrite_expansion
        self.extend_on = as_sources(train if extend_on is None else extend_on, "train")
        overlap = max(1, block_size // 4) if val_overlap is None else val_overlap
        streamed = (*as_sources(train, "train"), *self.extend_on) if streaming else ()
        self.plan = TextPlan(
            train=as_sources(train, "train"),
            validation=as_named_sources(val, "validation"),
            test=as_named_sources(test, "test"),
            train_layout=Layout(layout, block_size),
            scored_layout=Layout("whole", block_size, overlap),
            cache=RowCache(cache_folder(cache_dir), num_proc, frozenset(streamed)),
            shuffle_buffer=shuffle_buffer if streaming else None,
        )
        self._scored_batch_size = scored_batch_size
        self._fertility: dict[str, dict[str, Any]] | None = None

    # --- hooks -----------------------------------------------------------------------------------

    @override
    def prepare_data(self) -> None:
        """Build the expansion folder, tokenise what is not tokenised yet, measure the fertility."""
        if self.trainer is not None:  # before anything is built for a run that cannot be
            refuse_untested_strategy(self.trainer, type(self).__name__)
            if self.plan.is_streamed and self.trainer.state.fn == "fit":
                batches_of_an_epoch(self.trainer)
        base, folder = resolve_base(self.hparams["base"]), self.hparams["expansion_dir"]
        roles = _ROLES[None if self.trainer is None else self.trainer.state.fn]

        def texts() -> Iterable[str]:
            self.plan.check(roles)  # a broken file is found before the work begins
            return chain.from_iterable(map(self.plan.cache.read, self.extend_on))

        tokenizers = grow(
            self.extender,
            base,
            folder,
            texts,
            sources=self.extend_on,
            block_size=self.hparams["block_size"],
            overwrite=self.overwrite_expansion,
        )
        self.plan.prepare(roles, tokenizers)
        if "train" in roles and self._is_first_rank:
            self.plan.fertility(tokenizers)

    @override
    def setup(self, stage: str | None = None) -> None:
        """Load the tokenizers on this rank; rank zero tells the others the fertility."""
        base, folder = resolve_base(self.hparams["base"]), self.hparams["expansion_dir"]
        self._tokenizers = load_tokenizers(base, folder, block_size=self.hparams["block_size"])
        if "train" in _ROLES[stage]:
            self._fertility = from_first_rank(
                self.trainer, partial(self.plan.fertility, self._tokenizers)
            )

    @override
    def train_dataloader(self) -> ResumableLoader | StreamLoader:
        """Shuffled training rows of this rank; resumes in the middle of an epoch or of a stream.

        Raises:
            MisconfigurationException: If there is no text to train on.
        """
        if not self.plan.train:
            raise MisconfigurationException("There is no text to train on: give train.")
        known = self._loaded.grown
        if self.plan.is_streamed:
            streamed = self.plan.streamed_rows(known, **self._training_options)
            return stream_loader(streamed, self.trainer)
        rows = self.plan.training_rows(known)
        return self._training_loader(rows, Collate(frame_of(self.tokenizer).pad))

    @override
    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Whole documents to validate on, a loader for each of `val_names`."""
        return self._scored_loaders("validation", self._loaded.grown)

    @override
    def test_dataloader(self) -> list[DataLoader[Any]]:
        """Whole documents to test on, a loader for each of `test_names`."""
        return self._scored_loaders("test", self._loaded.grown)

    @override
    def predict_dataloader(self) -> DataLoader[Any]:
        """Prompts, padded on the left.

        Raises:
            MisconfigurationException: If there is no prompt.
        """
        prompts = self.hparams["predict"]
        if not prompts:
            raise MisconfigurationException("There is no prompt to continue: give predict.")
        if not isinstance(prompts, list):
            prompts = list(self.plan.cache.read(*as_sources(prompts, "test")))
        return prompt_loader(self.tokenizer, prompts, self._scored_batch_size)

    # --- what the run asks for -------------------------------------------------------------------

    def base_val_dataloaders(self) -> list[DataLoader[Any]]:
        """The text of `val_dataloader` cut by the base tokenizer, to score the base on."""
        return self._scored_loaders("validation", self._loaded.base)

    def fertility(self) -> dict[str, dict[str, Any]]:
        """Fertility of ``train`` and of each of `val_names`, before and after growth.

        As `FertilityComparison.to_dict` gives it, measured on the first 10,000 documents of each
        source. It is kept as JSON in the cache folder.

        Raises:
            RuntimeError: Outside of a fit, on another rank than zero, which alone measures.
        """
        if self._fertility is None:
            if not self._is_first_rank:
                raise RuntimeError("Rank zero measures the fertility: ask there, or in a fit.")
            self._fertility = self.plan.fertility(self._loaded)
        return self._fertility

    @property
    def val_names(self) -> list[str]:
        """Names of the texts to validate on, in the order of their loaders."""
        return list(self.plan.validation)

    @property
    def test_names(self) -> list[str]:
        """Names of the texts to test on, in the order of their loaders."""
        return list(self.plan.test)

    # --- parts -----------------------------------------------------------------------------------

    @property
    def _training_options(self) -> dict[str, Any]:
        """The run's batches, order and ranks."""
        names = ("batch_size", "num_workers", "seed")
        return {name: self.hparams[name] for name in names} | self._ranks

    def _training_loader(self, rows: Dataset[Any], collate: Collation) -> ResumableLoader:
        """A loader of any rows to train on."""
        limit = 1.0 if self.trainer is None else self.trainer.limit_train_batches
        return training_loader(rows, collate, limit_batches=limit, **self._training_options)

    def _scored_loaders(
        self, role: Literal["validation", "test"], known: KnownTokenizer
    ) -> list[DataLoader[Any]]:
        options = {"num_workers": self.hparams["num_workers"], **self._ranks}
        return self.plan.scored_loaders(role, known, batch_size=self._scored_batch_size, **options)
