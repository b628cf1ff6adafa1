"""A LightningDataModule that teaches new rows from pairs: pairs in, batches out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from lightning.fabric.utilities import rank_zero_warn
from transformers import PreTrainedTokenizerBase
from typing_extensions import override

from lightning_vocab.data.loader import ResumableLoader
from lightning_vocab.data.rows import Collate
from lightning_vocab.data.sources import plain
from lightning_vocab.data.tokenise import frame_of
from lightning_vocab.datamodule import Sources, VocabDataModule
from lightning_vocab.demo import resolve_base
from lightning_vocab.distributed import refuse_sharded_strategy
from lightning_vocab.grounding.chat import check_chat
from lightning_vocab.grounding.pairs import Pair, read_pairs
from lightning_vocab.grounding.rows import GroundingRows, grounding_rows
from lightning_vocab.grounding.templates import Templates
from lightning_vocab.vocabulary.added import AddTokens
from lightning_vocab.vocabulary.extender import Extender
from lightning_vocab.vocabulary.folder import MANIFEST_NAME, load_tokenizer
from lightning_vocab.vocabulary.wording import counted, some

_OBJECTS = {"self", "__class__", "extender", "overwrite_expansion"}


class GroundingDataModule(VocabDataModule):
    """Pairs of tokens and descriptions, so that new rows learn what their tokens mean.

    Every pair is put into templates of both directions, description to tokens and tokens to
    description. With the backbone and the old rows frozen (`FreezeBackbone`), the new rows are
    fitted to predict the answer ``y`` from the prompt ``x``: they minimise the sum over pairs and
    templates of ``-sum_t log p(y_t | x, y_<t)`` (GTI, arXiv 2604.02324; the loss is the mean over
    the answers' tokens of a batch). Only answers are targets. `UnfreezeAt` adds a part in which
    everything trains on the same pairs.

    Without an extender, an expansion folder that does not exist is built with the tokens of the
    pairs, in order of first appearance. Training resumes in the middle of an epoch with the batches
    that were left, and each rank gets rows of its own. Text given as ``val`` is scored in bits per
    byte as by `VocabDataModule`.

    The rows are made anew at each start, on each rank: about ten seconds for 100,000 of them on one
    core, and in memory four bytes a token and twelve a row.

    Args:
        pairs: A ``.jsonl`` or ``.tsv`` file of pairs, as `read_pairs` takes it.
        base: ``demo``, a local Hugging Face folder, or a hub id: the base model's tokenizer.
        expansion_dir: The expansion folder. All tokens of the pairs must be new tokens in it.
        extender: Grows the tokenizer when the expansion folder does not exist; `AddTokens` of the
            pairs' tokens if None.
        token_field: Field or column of the token, or of a list of tokens.
        description_field: Field or column of the description.
        to_tokens: Templates such as ``{description} is: {tokens}``; three plain ones if None.
        to_description: Templates such as ``{tokens} is: {description}``; three plain ones if None.
        chat: Whether prompts are put as a user's message by the tokenizer's chat template.
        allow_missing: Whether new tokens without a pair are let through, with a warning: nothing
            says what they mean, and as rows of the head they are only pushed away.
        val: Text to validate on, by name; the names appear in the keys of the log.
        block_size: Tokens of a row at most, and at most the model's context.
        batch_size: Rows of a training batch on each device.
        val_batch_size: Rows of a validation batch on each device; ``batch_size`` if None.
        num_workers: Processes that load batches, on each device.
        cache_dir: Folder of the tokenised validation text; ``lightning_vocab`` in the cache of
            `datasets` if None.
        seed: Seed of the order of the training rows.
        overwrite_expansion: Whether to replace an expansion folder that holds something else than
            the extender, or the pairs' tokens, make of this base.

    Raises:
        ValueError: If a size is too small, there is no expansion folder to name, or a template
            breaks the rules of `Templates`.

    Example:
        >>> data = GroundingDataModule("pairs.jsonl", expansion_dir="runs/grounding/expansion")
        >>> len(data.templates.to_tokens), data.val_names
        (3, [])
    """

    def __init__(
        self,
        pairs: str,
        base: str = "demo",
        expansion_dir: str | None = None,
        extender: Extender | None = None,
        token_field: str = "token",
        description_field: str = "description",
        to_tokens: list[str] | None = None,
        to_description: list[str] | None = None,
        chat: bool = False,
        allow_missing: bool = False,
        val: dict[str, Sources] | None = None,
        block_size: int = 128,
        batch_size: int = 16,
        val_batch_size: int | None = None,
        num_workers: int = 0,
        cache_dir: str | None = None,
        seed: int = 7,
        overwrite_expansion: bool = False,
    ) -> None:
        arguments = {name: plain(value) for name, value in locals().items() if name not in _OBJECTS}
        if expansion_dir is None:
            raise ValueError(
                "Grounding teaches new rows: give expansion_dir, a folder for the grown tokenizer."
            )
        super().__init__(
            base=base,
            expansion_dir=expansion_dir,
            extender=extender,
            val=val,
            block_size=block_size,
            batch_size=batch_size,
            val_batch_size=val_batch_size,
            num_workers=num_workers,
            cache_dir=cache_dir,
            seed=seed,
            overwrite_expansion=overwrite_expansion,
        )
        self.save_hyperparameters(arguments, logger=False)
        self.templates = Templates.of(to_tokens, to_description)
        self._rows: GroundingRows | None = None

    # --- hooks -----------------------------------------------------------------------------------

    @override
    def prepare_data(self) -> None:
        """Build the expansion folder where it is missing, and tokenise the validation text.

        Raises:
            FileNotFoundError: If there is no file of pairs.
            ValueError: If the pairs cannot be read, the base has one of their tokens already, or
                chat is asked of a base without a chat template.
        """
        if self.trainer is not None:
            refuse_sharded_strategy(self.trainer, type(self).__name__)
        pairs = self.pairs  # first: a file that cannot be read is refused before any work
        tokenizer = load_tokenizer(resolve_base(self.hparams["base"]))
        if self.hparams["chat"]:
            check_chat(tokenizer)
        folder = Path(self.hparams["expansion_dir"]).expanduser()
        stands = (folder / MANIFEST_NAME).is_file()
        if self.extender is None and (self.overwrite_expansion or not stands):
            self.extender = _extender_for(pairs, tokenizer)
        super().prepare_data()

    @override
    def setup(self, stage: str | None = None) -> None:
        """Load the tokenizers on this rank and, to train, make the rows of the pairs.

        Raises:
            ValueError: If the expansion lacks a token of the pairs or has one without a pair, or a
                row is too long or not read as meant (see `grounding_rows`).
        """
        super().setup(stage)
        if stage not in (None, "fit"):
            return
        assert self.expanded is not None, "expansion_dir is required"
        ids = {token.surface: token.id for token in self.expanded.expansion.tokens}
        self._check_covered(ids)
        self._rows = grounding_rows(
            self.pairs,
            self.templates,
            self.tokenizer,
            frame_of(self.tokenizer),
            chat=self.hparams["chat"],
            token_ids=ids,
            block_size=self.hparams["block_size"],
        )

    @override
    def train_dataloader(self) -> ResumableLoader:
        """Shuffled rows of both directions for this rank; resumes in the middle of an epoch."""
        if self._rows is None:
            raise RuntimeError("No rows are made yet: call prepare_data() and setup() first.")
        return self._training_loader(self._rows, Collate(frame_of(self.tokenizer).pad))

    # --- what the run asks for -------------------------------------------------------------------

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """The pairs of the file, read when first asked for."""
        hparams = self.hparams
        return read_pairs(hparams["pairs"], hparams["token_field"], hparams["description_field"])

    # --- parts -----------------------------------------------------------------------------------

    def _check_covered(self, ids: dict[str, int]) -> None:
        """Make sure that pairs and new tokens speak of the same tokens."""
        tokens = dict.fromkeys(token for pair in self.pairs for token in pair.tokens)
        folder, file = self.hparams["expansion_dir"], self.hparams["pairs"]
        if lacking := [token for token in tokens if token not in ids]:
            raise ValueError(
                f"{counted(len(lacking), 'token')} of {file!r} are no new tokens of the expansion "
                f"in {folder!r}: {some(lacking)}. Choose another folder, or set "
                "overwrite_expansion to build it anew from the pairs."
            )
        missing = [token for token in ids if token not in tokens]
        if not missing:
            return
        said = (
            f"{counted(len(missing), 'new token')} of the expansion in {folder!r} have no pair in "
            f"{file!r}, so nothing teaches their rows: {some(missing)}."
        )
        if not self.hparams["allow_missing"]:
            raise ValueError(f"{said} Describe them, or set allow_missing to leave them untaught.")
        rank_zero_warn(said)


def _extender_for(pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase) -> AddTokens:
    """Adds the tokens of the pairs in order of first appearance.

    Raises:
        ValueError: If the base has one already.
    """
    tokens = list(dict.fromkeys(token for pair in pairs for token in pair.tokens))
    vocabulary = tokenizer.get_vocab()
    if known := [token for token in tokens if token in vocabulary]:
        raise ValueError(
            f"{counted(len(known), 'token')} of the pairs stand in the vocabulary of the base "
            f"already, so they can get no new row: {some(known)}. Remove their pairs, or write a "
            "token that only frames the others into the templates."
        )
    return AddTokens(tokens)
