"""A LightningDataModule that mines snippets around the new tokens of a corpus."""

from __future__ import annotations

from pathlib import Path

import numpy
from lightning.fabric.utilities import rank_zero_info, rank_zero_warn
from lightning.fabric.utilities.exceptions import MisconfigurationException
from numpy.typing import NDArray
from typing_extensions import override

from lightning_vocab.data.growing import Tokenizers, load_tokenizers
from lightning_vocab.data.loader import ResumableLoader
from lightning_vocab.data.tokenise import Frame, frame_of
from lightning_vocab.datamodule import Sources, VocabDataModule
from lightning_vocab.demo import resolve_base
from lightning_vocab.distillation.rows import CollateSnippets, SnippetRows
from lightning_vocab.distillation.snippets import Mining, Snippets
from lightning_vocab.distillation.stream import TokenStream
from lightning_vocab.vocabulary.expansion import NewToken, VocabularyExpansion
from lightning_vocab.vocabulary.extender import Extender
from lightning_vocab.vocabulary.pieces import PieceTable
from lightning_vocab.vocabulary.whole_files import write_whole
from lightning_vocab.vocabulary.wording import counted

_FORMAT = 1
"""Raised when other snippets are mined from the same text."""
_MOST_NAMED = 10


class DistillationDataModule(VocabDataModule):
    """Snippets of text around new tokens, for `DistillationModule`.

    `prepare_data` grows the vocabulary and tokenises the text as `VocabDataModule` does (a later
    `fit` on the same text and cache finds its rows there), then mines the snippets in one pass and
    keeps them in ``cache_dir``: 24 bytes for each, since they only say where they lie. An epoch is
    all snippets; training resumes in the middle of one. Validation is that of `VocabDataModule`.

    A token that occurs fewer than ``min_snippets`` times is left to the initializer: student and
    teacher read its pieces, and its rows stay bit for bit as they are. A warning names the first
    ten such tokens, and the log at level INFO all of them.

    Args:
        base: ``demo``, a local Hugging Face folder, or a hub id: the base model's tokenizer.
        expansion_dir: The expansion folder. Without an extender it must exist.
        extender: Grows the tokenizer when the expansion folder does not exist; a folder that exists
            must have been made by the same extender from the same base and text.
        train: Text to mine: a source, its path, or a list of them.
        val: Text to validate on, by name; the names appear in the keys of the log.
        extend_on: Text to grow the vocabulary on; the training text if None.
        num_snippets: Snippets of each new token, at most.
        snippet_length: Tokens of a snippet, at most, cut by the grown tokenizer.
        min_snippets: A token that occurs less often is not trained: a handful of places says more
            about themselves than about the token.
        block_size: Tokens of a row, at most the model's context. Snippets are cut so that their
            pieces fit.
        batch_size: Snippets of a training batch on each device.
        val_batch_size: Rows of a validation batch on each device; ``batch_size`` if None.
        val_overlap: Tokens of context that each later window of a long validated document repeats;
            a quarter of ``block_size`` if None.
        num_proc: Processes that tokenise.
        num_workers: Processes that load batches, on each device.
        cache_dir: Folder of the tokenised text and the snippets; ``lightning_vocab`` in the cache
            of `datasets` if None.
        seed: Seed of the choice of snippets and of their order.
        overwrite_expansion: Whether to replace an expansion folder that another extender or base
            made, or that was grown on other text.

    Raises:
        ValueError: If there is no expansion folder, or a size is too small.

    Example:
        >>> data = DistillationDataModule("demo", "runs/expansion", train="demo:code")
        >>> data.hparams["num_snippets"], data.hparams["snippet_length"]
        (100, 50)
    """

    def __init__(
        self,
        base: str = "demo",
        expansion_dir: str | None = None,
        extender: Extender | None = None,
        train: Sources | None = None,
        val: dict[str, Sources] | None = None,
        extend_on: Sources | None = None,
        num_snippets: int = 100,
        snippet_length: int = 50,
        min_snippets: int = 4,
        block_size: int = 256,
        batch_size: int = 16,
        val_batch_size: int | None = None,
        val_overlap: int | None = None,
        num_proc: int = 1,
        num_workers: int = 0,
        cache_dir: str | None = None,
        seed: int = 7,
        overwrite_expansion: bool = False,
    ) -> None:
        if expansion_dir is None:
            raise ValueError(
                "Distillation teaches new tokens what their pieces do: give expansion_dir, the "
                "folder of the grown vocabulary."
            )
        if not 1 <= min_snippets <= num_snippets:
            raise ValueError(
                f"Expected min_snippets from 1 to num_snippets ({num_snippets}), got "
                f"{min_snippets}."
            )
        super().__init__(
            base=base,
            expansion_dir=expansion_dir,
            extender=extender,
            train=train,
            val=val,
            extend_on=extend_on,
            block_size=block_size,
            batch_size=batch_size,
            val_batch_size=val_batch_size,
            val_overlap=val_overlap,
            num_proc=num_proc,
            num_workers=num_workers,
            cache_dir=cache_dir,
            seed=seed,
            overwrite_expansion=overwrite_expansion,
        )
        # A row is a start token and a snippet, read in pieces.
        self._mining = Mining(num_snippets, snippet_length, block_size - 1, seed)
        own = {
            "num_snippets": num_snippets,
            "snippet_length": snippet_length,
            "min_snippets": min_snippets,
        }
        self.save_hyperparameters(own, logger=False)
        self._snippets: Snippets | None = None

    # --- hooks -----------------------------------------------------------------------------------

    @override
    def prepare_data(self) -> None:
        """Grow, tokenise, and mine the snippets unless they are there."""
        trains = self.trainer is None or self.trainer.state.fn == "fit"
        if trains and not self.plan.train:
            raise MisconfigurationException("There is no text to mine snippets from: give train.")
        super().prepare_data()
        if not trains:
            return
        base, folder = resolve_base(self.hparams["base"]), self.hparams["expansion_dir"]
        tokenizers = load_tokenizers(base, folder)
        place = self._place(tokenizers)
        if not place.exists():
            stream = self._stream(tokenizers)
            write_whole(place, self._mining.mine(stream, _expansion_of(tokenizers)).save)

    @override
    def setup(self, stage: str | None = None) -> None:
        """Load tokenizers and snippets on this rank; name the tokens that occur too seldom.

        Raises:
            ValueError: If all tokens do.
        """
        super().setup(stage)
        if stage not in (None, "fit"):
            return
        place = self._place(self._loaded)
        if not place.exists():
            raise FileNotFoundError(
                f"No snippets in {place.parent}: expected {place.name}. Call prepare_data() first "
                "(the Trainer does), on each node where cache_dir is not shared, and leave the "
                "text alone while a run starts."
            )
        self._snippets = Snippets.load(place)
        self._tell_of_held_tokens(_expansion_of(self._loaded))

    @override
    def train_dataloader(self) -> ResumableLoader:
        """Shuffled snippets of this rank, as student and teacher read them."""
        expansion = _expansion_of(self._loaded)
        held, snippets = self._is_held(), self._mined
        rows = SnippetRows(
            self._stream(self._loaded),
            snippets.rows[~held[snippets.rows["token"]]],
            start=self._frame.start,
            taught=_table(expansion, ~held),
            held=_table(expansion, held),
        )
        teacher_pad = frame_of(self._loaded.base.tokenizer).pad
        return self._training_loader(rows, CollateSnippets(self._frame.pad, teacher_pad))

    # --- what the run asks for -------------------------------------------------------------------

    @property
    def held_ids(self) -> tuple[int, ...]:
        """Ids of the new tokens that occur too seldom to be trained, ascending."""
        return tuple(token.id for token in _chosen(_expansion_of(self._loaded), self._is_held()))

    # --- parts -----------------------------------------------------------------------------------

    @property
    def _mined(self) -> Snippets:
        if self._snippets is None:
            raise RuntimeError("No snippets are loaded yet: call prepare_data() and setup() first.")
        return self._snippets

    @property
    def _frame(self) -> Frame:
        return frame_of(self._loaded.grown.tokenizer)

    def _is_held(self) -> NDArray[numpy.bool_]:
        too_few: NDArray[numpy.bool_] = self._mined.num_occurrences < self.hparams["min_snippets"]
        return too_few

    def _stream(self, tokenizers: Tokenizers) -> TokenStream:
        known, layout = tokenizers.grown, self.plan.train_layout
        documents = [self.plan.cache.load(source, known, layout) for source in self.plan.train]
        return TokenStream(documents, starts_documents=frame_of(known.tokenizer).starts_documents)

    def _place(self, tokenizers: Tokenizers) -> Path:
        cache, mining = self.plan.cache, self._mining
        key = cache.key(
            [_FORMAT, *map(cache.identify, self.plan.train)],
            [tokenizers.base.fingerprint, tokenizers.grown.fingerprint],
            [mining.num_snippets, mining.snippet_length, mining.max_pieces, mining.seed],
        )
        return cache.folder / f"snippets-{key}.npz"

    def _tell_of_held_tokens(self, expansion: VocabularyExpansion) -> None:
        least = self.hparams["min_snippets"]
        held = self._is_held()
        tokens, counts = _chosen(expansion, held), self._mined.num_occurrences[held]
        if not tokens:
            return
        shown = [f"{token.token!r} ({count})" for token, count in zip(tokens, counts, strict=True)]
        listed = ", ".join(shown[:_MOST_NAMED]) + (" …" if len(shown) > _MOST_NAMED else "")
        if len(tokens) == len(expansion.tokens):
            raise ValueError(
                f"None of {counted(len(tokens), 'new token')} occurs {least} times in the training "
                f"text: {listed}. Give text that uses them, or a smaller min_snippets."
            )
        rank_zero_warn(
            f"{counted(len(tokens), 'new token')} of {len(expansion.tokens):,} occur fewer than "
            f"{least} times in the training text and keep the rows that the initializer gave: "
            f"{listed}. Text that uses them would teach them."
        )
        if len(shown) > _MOST_NAMED:
            rank_zero_info(f"New tokens that occur fewer than {least} times: {', '.join(shown)}.")


def _expansion_of(tokenizers: Tokenizers) -> VocabularyExpansion:
    assert tokenizers.expanded is not None  # __init__ has asked for the folder
    return tokenizers.expanded.expansion


def _chosen(expansion: VocabularyExpansion, wanted: NDArray[numpy.bool_]) -> list[NewToken]:
    return [expansion.tokens[place] for place in numpy.flatnonzero(wanted)]


def _table(expansion: VocabularyExpansion, wanted: NDArray[numpy.bool_]) -> PieceTable:
    return PieceTable(_chosen(expansion, wanted), expansion.num_rows)
