"""What an initializer gets, and what it gives back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightning_vocab.initializers.moments import mean_row
from lightning_vocab.vocabulary.expansion import VocabularyExpansion
from lightning_vocab.vocabulary.fingerprint import backend


class PieceBags(NamedTuple):
    """The pieces of all new tokens, flattened for `torch.nn.functional.embedding_bag`.

    Args:
        ids: Ids of the pieces, token after token, ``(num_pieces,)``.
        offsets: Place of each token's first piece, ``(num_new,)``.
        counts: Number of pieces of each token, ``(num_new,)``.
        bag: For each piece the token it belongs to, ``(num_pieces,)``.
    """

    ids: Tensor
    offsets: Tensor
    counts: Tensor
    bag: Tensor


@dataclass(frozen=True, eq=False)
class RowContext:
    """Everything from which rows of new tokens can be made. All tensors are the base's, detached.

    Args:
        expansion: The manifest; its tokens ascend by id, and so do the rows.
        tokenizer: The grown tokenizer. Old ids mean in it what they mean in the base.
        input_rows: The embedding matrix, ``(base_rows, dim)``: weights, never scaled.
        output_rows: The head matrix ``(base_rows, dim)``, or None where the model is tied.
        output_bias: Bias of the head, ``(base_rows,)``, or None.
        generator: Source of all randomness.
        model: The base model before its rows are split, for methods that run it; None where there
            are only rows.
    """

    expansion: VocabularyExpansion
    tokenizer: PreTrainedTokenizerBase
    input_rows: Tensor
    output_rows: Tensor | None
    output_bias: Tensor | None
    generator: torch.Generator
    model: PreTrainedModel | None = None

    @property
    def base_len(self) -> int:
        """Number of tokens of the base tokenizer."""
        return self.expansion.base_len

    @property
    def num_new(self) -> int:
        """Number of new rows."""
        return len(self.expansion.tokens)

    @cached_property
    def base_ids(self) -> Tensor:
        """Ids of the base rows that have a token, ascending: the rows that statistics are about.

        Padded rows and the slots that a new token takes have no token. A row of zeros is left out,
        too: it was never trained (reserved slots, the padding token).

        Raises:
            ValueError: If no row is left.
        """
        device = self.input_rows.device
        known = set(self.tokenizer.get_vocab().values()) - set(self.expansion.new_ids)
        found = sorted(id for id in known if id < len(self.input_rows))
        ids = torch.tensor(found, dtype=torch.long, device=device)
        for rows in (self.input_rows, self.output_rows):
            if rows is not None:
                ids = ids[rows.any(dim=1).to(device)[ids]]
        if not len(ids):
            raise ValueError(
                f"Expected base rows that have a token and are not zero, found none among "
                f"{len(self.input_rows)}: are the weights of the base loaded?"
            )
        return ids

    @cached_property
    def pieces(self) -> PieceBags:
        """The pieces of all new tokens, on the device of the input rows."""
        device = self.input_rows.device
        pieces = [token.pieces for token in self.expansion.tokens]
        counts = torch.tensor([len(ids) for ids in pieces], dtype=torch.long, device=device)
        flat = torch.tensor([id for ids in pieces for id in ids], dtype=torch.long, device=device)
        bag = torch.repeat_interleave(torch.arange(len(pieces), device=device), counts)
        return PieceBags(flat, counts.cumsum(0) - counts, counts, bag)

    def only(self, places: Sequence[int]) -> RowContext:
        """The same base with some of the new tokens.

        Args:
            places: Which of the new tokens, ascending, counted from 0 in their order.
        """
        tokens = tuple(self.expansion.tokens[place] for place in places)
        part = replace(self, expansion=replace(self.expansion, tokens=tokens))
        # A slot that another of the new tokens takes is still no row of the base.
        part.__dict__["base_ids"] = self.base_ids
        return part

    def texts(self, ids: Iterable[int]) -> list[str]:
        """The text of each single token; U+FFFD stands for bytes that are not a whole character.

        Spaces at the beginning are kept, also where a decoder (SentencePiece) drops them.
        """
        return token_texts(self.tokenizer, ids)


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Iterable[int]) -> list[str]:
    """The text of each single token of a tokenizer, as `RowContext.texts` gives it.

    Args:
        tokenizer: The tokenizer.
        ids: Ids of its tokens.

    Raises:
        TypeError: If the tokenizer does not run on the tokenizers library.
    """
    ids = list(ids)
    names = tokenizer.convert_ids_to_tokens(ids)
    # The backend decodes a batch at once; `batch_decode` takes five times as long for the same.
    decoded = backend(tokenizer).decode_batch([[id] for id in ids], skip_special_tokens=False)
    # No byte-level token contains U+2581 itself: its three bytes are spelled as other letters.
    return [
        name.replace("\u2581", " ") if "\u2581" in name else text
        for name, text in zip(names, decoded, strict=True)
    ]


class Initializer(ABC):
    """Makes the rows of the new tokens from the rows of the base.

    Example:
        >>> class FirstPiece(Initializer):
        ...     def rows(self, context: RowContext) -> tuple[Tensor, Tensor | None]:
        ...         first = context.pieces.ids[context.pieces.offsets]
        ...         outputs = context.output_rows
        ...         return context.input_rows[first], None if outputs is None else outputs[first]
    """

    @abstractmethod
    def rows(self, context: RowContext) -> tuple[Tensor, Tensor | None]:
        """Input rows ``(num_new, dim)`` and, if the model is untied, output rows of that shape.

        Rows are in ascending order of token id, computed in float32 (float64 for a base of
        float64); `expand_model` casts them to the dtype of the base.

        Args:
            context: The base's rows, the new tokens and their pieces.
        """

    def bias(self, context: RowContext) -> Tensor:
        """Head bias of the new rows, ``(num_new,)``: here the mean bias of the base's tokens.

        Called only where the head has a bias.

        Args:
            context: The base's rows, the new tokens and their pieces.

        Raises:
            ValueError: If the head has no bias.
        """
        return mean_row(required_bias(context), context.base_ids).expand(context.num_new)

    def remarks(self) -> list[str]:
        """What is to be said of the last call of `rows`, such as the share of tokens covered."""
        return []


def required_bias(context: RowContext) -> Tensor:
    """The bias of the base's head, ``(base_rows,)``.

    Raises:
        ValueError: If the head has none.
    """
    if context.output_bias is None:
        raise ValueError("Expected a head with a bias; the head of this model has none.")
    return context.output_bias


def random_rows(context: RowContext) -> Tensor:
    """Standard normal numbers ``(num_new, dim)`` of the context's generator.

    They are drawn on the generator's device, so the device of the model does not change them.
    """
    rows, generator = context.input_rows, context.generator
    dtype = torch.promote_types(rows.dtype, torch.float32)
    shape = (context.num_new, rows.shape[1])
    drawn = torch.randn(shape, generator=generator, device=generator.device, dtype=dtype)
    return drawn.to(rows.device)
