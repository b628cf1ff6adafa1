"""Hidden states of the base model: a space that needs nothing from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from typing_extensions import override

from lightning_vocab.initializers.base import RowContext
from lightning_vocab.initializers.spaces.base import TokenVectors
from lightning_vocab.initializers.spaces.cache import SavedSpace, file_identity
from lightning_vocab.initializers.spaces.states import States, quiet, weights_hash, windows
from lightning_vocab.initializers.spaces.tokens import (
    as_base,
    check_files,
    cut_files,
    is_ordinary,
    parted,
    places_by_id,
)

Pool = Literal["last", "mean"]


class BaseModelSpace(SavedSpace):
    """Hidden states of the base model over a token's pieces, or over text in which it occurs.

    Without text, each token is read alone: a base token as its own id, a new token as its pieces,
    each behind the start token (bos, else eos, if the tokenizer has one). The start token takes the
    place that models put unlike states on, so that the first piece is not compared from there. With
    ``snippets``, the text is cut by the grown tokenizer and read by the base in its pieces; a
    token's vector is the mean of the states at the last piece of each place where it occurs, and a
    token that does not occur is unknown. Special tokens are unknown.

    States share a large common part, and a few of their dimensions are much larger than all others,
    so that raw cosines are close to 1. Each dimension is therefore centred and divided by its
    standard deviation, both over the known base tokens.

    The model runs in its own dtype, without gradients and without dropout; its modes and the state
    of all random generators are as before afterwards.

    Cost: ``2 * num_old`` tokens and the new tokens' pieces through the backbone, or each token of
    the text once. Memory: the states of ``batch_tokens`` tokens at all layers, and the vectors,
    ``4 * (num_new + num_old) * width`` bytes.

    Args:
        layer: Index of the hidden states: 0 are the embeddings, -1 the last layer. None is the
            middle layer, where the pieces of a word have been put together and the next token is
            not yet all that counts.
        pool: ``last`` takes the state at a new token's last piece, the only one that has seen all
            of them; ``mean`` the mean over its pieces. With ``snippets`` it is always the last.
        snippets: ``.txt`` (a line is a document) or ``.jsonl`` files of text to read the tokens in.
        text_field: Field of a JSON line that holds the text.
        context_tokens: Base tokens that are read at a time where there is text.
        batch_tokens: Tokens in one forward pass.
        cache_dir: Folder to keep the vectors in; None keeps nothing. The weights are part of the
            key, which reads each of them once.

    Raises:
        ValueError: If an argument is none of its choices or below 1, or a file is of unknown kind.
        FileNotFoundError: If a file is not there.

    Example:
        >>> BaseModelSpace(layer=-1, pool="mean").batch_tokens
        4096
    """

    def __init__(
        self,
        layer: int | None = None,
        pool: Pool = "last",
        snippets: str | list[str] | None = None,
        text_field: str = "text",
        context_tokens: int = 256,
        batch_tokens: int = 4096,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__(cache_dir)
        if pool not in get_args(Pool):
            raise ValueError(f"pool must be last or mean: got {pool!r}.")
        if min(context_tokens, batch_tokens) < 1:
            raise ValueError(
                "context_tokens and batch_tokens must be at least 1, got "
                f"{context_tokens} and {batch_tokens}."
            )
        self.layer = layer
        self.pool = pool
        self.snippets = [snippets] if isinstance(snippets, str) else snippets
        if self.snippets is not None:
            check_files(self.snippets)
        self.text_field = text_field
        self.context_tokens = context_tokens
        self.batch_tokens = batch_tokens

    @override
    def identity(self, context: RowContext) -> dict[str, Any]:
        """The arguments, the files of text and a hash of all weights."""
        return {
            "layer": self.layer,
            "pool": self.pool,
            "snippets": [file_identity(path) for path in self.snippets or []],
            "text_field": self.text_field,
            "context_tokens": self.context_tokens,
            "weights": weights_hash(_model_of(context)),
        }

    @override
    @torch.no_grad()
    def compute(self, context: RowContext) -> TokenVectors:
        """States of all tokens, standardised.

        Raises:
            ValueError: If the context has no model, the model no such layer, or no base token is
                known.
        """
        model = _model_of(context)
        self._check_room(model)
        states = States(model, context, self.layer, self.batch_tokens)
        with quiet(model):
            if self.snippets is None:
                sums, counts = self._alone(context, states)
            else:
                sums, counts = self._in_text(context, states, self.snippets)
        vectors = sums / counts.clamp_min(1).unsqueeze(1)
        knows = counts > 0
        is_kept = knows[context.num_new :] & is_ordinary(context)
        vectors = _standardised(vectors, vectors[context.num_new :][is_kept])
        # A state that is the mean of all has no direction.
        return parted(context, vectors, knows & vectors.any(dim=1))

    def _check_room(self, model: PreTrainedModel) -> None:
        room = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if self.snippets is not None and room is not None and self.context_tokens >= room:
            raise ValueError(
                f"The base reads at most {room} tokens, the start token included: lower "
                f"context_tokens, which is {self.context_tokens}."
            )

    def _alone(self, context: RowContext, states: States) -> tuple[Tensor, Tensor]:
        """States of each token by itself; every token is known."""
        pieces = context.pieces
        vectors = states.empty(context.num_new + len(context.base_ids))
        counts = pieces.counts.cpu()
        flat, offsets = pieces.ids.cpu(), pieces.offsets.cpu()
        for length in torch.unique(counts).tolist():
            places = (counts == length).nonzero().flatten()
            ids = flat[offsets[places].unsqueeze(1) + torch.arange(length)]
            for start, found in states.of(ids):
                some = found[:, -1] if self.pool == "last" else found.mean(dim=1)
                vectors[places[start : start + len(some)]] = some
        for start, found in states.of(context.base_ids.cpu().unsqueeze(1)):
            first = context.num_new + start
            vectors[first : first + len(found)] = found[:, 0]
        return vectors, torch.ones(len(vectors))

    def _in_text(
        self, context: RowContext, states: States, paths: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """Sums of the states at the last piece of each occurrence, and how many there were."""
        places = places_by_id(context)
        sums = states.empty(context.num_new + len(context.base_ids))
        counts = torch.zeros(len(sums))
        for texts in cut_files(context, paths, self.text_field):
            base, ends = as_base(context, texts)
            owners = np.full(len(base.ids), -1)
            owners[ends] = places[texts.ids]
            for ids, owner in windows(base.ids, base.lengths, owners, self.context_tokens):
                for start, found in states.of(ids):
                    some = owner[start : start + len(found)]
                    is_owned = some >= 0
                    sums.index_add_(0, some[is_owned], found[is_owned])
                    counts += some[is_owned].bincount(minlength=len(counts))
        return sums, counts


def _standardised(vectors: Tensor, known: Tensor) -> Tensor:
    """Vectors less the mean of the known ones, divided by their standard deviation."""
    if not len(known):
        raise ValueError(
            "BaseModelSpace knows no base token: the text has none of them, or all are special."
        )
    deviation = known.std(dim=0, correction=0)
    scale = torch.where(deviation > 0, 1 / deviation, 0)
    standardised: Tensor = (vectors - known.mean(dim=0)) * scale
    return standardised


def _model_of(context: RowContext) -> PreTrainedModel:
    if context.model is None:
        raise ValueError(
            "BaseModelSpace runs the base model, but got rows without one: let expand_model make "
            "the rows, or set RowContext.model, or take another space."
        )
    return context.model
