"""What the contract is checked on: a model and its tokenizer, their base, and what was given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lightning_vocab.contract.stored import Matrices, stored_matrices
from lightning_vocab.rows.locate import find_causal_lm, find_split, is_causal_lm
from lightning_vocab.vocabulary.backend_state import BackendState, read_state
from lightning_vocab.vocabulary.expansion import VocabularyExpansion
from lightning_vocab.vocabulary.fingerprint import backend

Batch = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class ModelWithTokenizer:
    """A tokenizer and as much of its model as there is.

    Args:
        tokenizer: The tokenizer.
        model: The model with its weights; None where they are not looked at.
        config: The model's config, or None where there is none.
        generation_config: The model's generation config, or None.
        folder: The folder that both came from, or None.
        misfits: Stored tensors whose shape is not the one that the config asks for.
        lacks_head: Whether the config asks for a head of its own and the folder stores none; its
            model is None then, since the head would start at random.
    """

    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel | None = None
    config: PreTrainedConfig | None = None
    generation_config: GenerationConfig | None = None
    folder: Path | None = None
    misfits: tuple[str, ...] = ()
    lacks_head: bool = False

    @classmethod
    def of(cls, model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> ModelWithTokenizer:
        """A model in memory with its tokenizer.

        Args:
            model: A causal language model, split or not, or a module that holds one.
            tokenizer: Its tokenizer.
        """
        found = find_causal_lm(model)
        return cls(tokenizer, found, found.config, found.generation_config)

    @cached_property
    def state(self) -> BackendState:
        """The tokenizer's backend as JSON."""
        return read_state(self.tokenizer)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Every token with its id; two tokens of one id are both in it."""
        found: dict[str, int] = backend(self.tokenizer).get_vocab(with_added_tokens=True)
        return found

    @cached_property
    def tokens(self) -> dict[int, str]:
        """The token of each id that has one."""
        return {id: token for token, id in self.ids.items()}

    @property
    def text_config(self) -> PreTrainedConfig | None:
        """The part of the config that speaks of the language model."""
        return None if self.config is None else self.config.get_text_config()

    @property
    def config_rows(self) -> int | None:
        """Rows as the config counts them."""
        rows = getattr(self.text_config, "vocab_size", None)
        return None if rows is None else int(rows)

    @property
    def context(self) -> int | None:
        """Positions that the model can take, as the config names them."""
        found = getattr(self.text_config, "max_position_embeddings", None)
        return int(found) if found is not None and found > 0 else None

    @cached_property
    def shape(self) -> PreTrainedModel | None:
        """The model, or one without weights built from the config; None where there is neither."""
        if self.model is not None or self.config is None:
            return self.model
        try:
            with torch.device("meta"):
                found = AutoModelForCausalLM.from_config(self.config)
        except ValueError:  # a config of another kind of model
            return None
        return found if is_causal_lm(found) else None

    @cached_property
    def matrices(self) -> Matrices | None:
        """The rows: of the model in memory, else as the folder stores them."""
        if self.model is None:
            return self._stored_matrices()
        split = find_split(self.model)
        if split is not None:
            rows, bias = split[1].rows.merged()
            shared = split[0].rows is split[1].rows
            return Matrices(
                rows if shared else split[0].rows.merged()[0], None if shared else rows, bias
            )
        embedding, head = self.model.get_input_embeddings(), self.model.get_output_embeddings()
        assert isinstance(embedding.weight, Tensor)
        assert isinstance(head.weight, Tensor)
        shared = embedding.weight is head.weight
        bias = getattr(head, "bias", None)
        return Matrices(
            embedding.weight.detach(),
            None if shared else head.weight.detach(),
            None if bias is None else bias.detach(),
        )

    def _stored_matrices(self) -> Matrices | None:
        if self.folder is None or self.shape is None:
            return None
        return stored_matrices(self.folder, self.shape)


@dataclass(frozen=True, eq=False)
class ContractInputs:
    """What a check may be given beyond model, tokenizer, expansion and base.

    What is not given is not checked, and the findings say so.

    Args:
        batch: A training batch: ``input_ids``, ``labels`` (not shifted, -100 where a token is no
            target) and, where rows are padded, ``attention_mask``; all ``(batch, time)``.
        texts: Texts by language or domain, as the model will meet them.
        batch_size: Rows of a training batch, for the memory of its logits; the batch's if None.
        sequence_length: Tokens of a row, for the memory of its logits; the batch's if None.
        chunk_size: Positions that the loss scores at a time; None if it builds all logits at once.
        memory_gib: GiB that the logits may take; None asks nothing.
        min_context_bytes: Bytes of text that the context must hold in every language.
        divisible_by: Numbers that must divide the number of rows.
        initial_rows: Rows of the new tokens before training, ascending by id, ``(num_new, dim)``:
            input rows and, where the model is untied, head rows.
        loss: The training loss, from a batch to a scalar in nats; None takes this package's.
        cache: A folder of tokenised rows, or the folder of several; or, by source, whether its
            rows were cut with this tokenizer.
        stop_strings: Strings at which generation is stopped.
        protocol_tokens: Tokens of roles and protocols that must be one id, besides all that the
            tokenizer registers.
        old_rows: ``unchanged`` if no old row may differ from the base, ``trained`` if they were
            trained; None only reports.
        stage: ``trained`` judges a checkpoint that is to be shipped. ``start`` judges a model
            before its first step, whose new rows may still be alike.
    """

    batch: Batch | None = None
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    batch_size: int | None = None
    sequence_length: int | None = None
    chunk_size: int | None = None
    memory_gib: float | None = None
    min_context_bytes: int | None = None
    divisible_by: Sequence[int] = ()
    initial_rows: tuple[Tensor, Tensor | None] | None = None
    loss: Callable[[Batch], Tensor] | None = None
    cache: str | Path | Mapping[str, bool] | None = None
    stop_strings: Sequence[str] = ()
    protocol_tokens: Sequence[str] = ()
    old_rows: Literal["unchanged", "trained"] | None = None
    stage: Literal["trained", "start"] = "trained"

    def __post_init__(self) -> None:
        sizes = [self.batch_size, self.sequence_length, self.chunk_size, self.min_context_bytes]
        if any(size is not None and size < 1 for size in [*sizes, *self.divisible_by]):
            raise ValueError(
                "Expected batch_size, sequence_length, chunk_size, min_context_bytes and "
                f"divisible_by of at least 1, got {sizes} and {list(self.divisible_by)}."
            )
        if self.memory_gib is not None and not self.memory_gib > 0:  # nan, too
            raise ValueError(f"Expected memory_gib above 0, got {self.memory_gib}.")
        if self.batch is not None and not {"input_ids", "labels"} <= set(self.batch):
            raise ValueError(
                f"Expected a batch with input_ids and labels, got {sorted(self.batch)}."
            )


@dataclass(frozen=True, eq=False)
class Subject:
    """All that a check of the contract looks at.

    Args:
        checked: The model and tokenizer that are checked.
        expansion: The manifest of the grown vocabulary, or None.
        base: Model and tokenizer before growth, or None.
        inputs: What else was given.
    """

    checked: ModelWithTokenizer
    expansion: VocabularyExpansion | None
    base: ModelWithTokenizer | None
    inputs: ContractInputs

    @cached_property
    def new_ids(self) -> tuple[int, ...] | None:
        """Ids of the new tokens, ascending; None where neither manifest nor base tells."""
        if self.expansion is not None:
            return self.expansion.new_ids
        if self.base is None:
            return None
        known = self.base.ids
        return tuple(sorted(id for token, id in self.checked.ids.items() if token not in known))

    @cached_property
    def heights(self) -> dict[str, int]:
        """Rows of embedding, head, head bias and config, as far as there are any."""
        heights: dict[str, int] = {}
        if self.checked.model is not None:
            heights = heights_of(self.checked.model)
        if self.checked.config_rows is not None:
            heights["config"] = self.checked.config_rows
        return heights

    @property
    def num_rows(self) -> int | None:
        """Rows that every part has; None where nothing tells."""
        return min(self.heights.values(), default=None)

    @property
    def is_one_height(self) -> bool:
        """Whether all parts have the same number of rows."""
        return len(set(self.heights.values())) == 1


def heights_of(model: PreTrainedModel) -> dict[str, int]:
    """Rows of embedding, head and head bias.

    Args:
        model: A causal language model, split or not.
    """
    split = find_split(model)
    if split is not None:
        return {"embedding": split[0].num_embeddings, "head": split[1].out_features}
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    parts = {
        "embedding": embedding.weight,
        "head": head.weight,
        "head bias": getattr(head, "bias", None),
    }
    return {name: len(part) for name, part in parts.items() if isinstance(part, Tensor)}
