"""Which parameter of a module plays which part when a vocabulary grows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from torch import nn
from transformers import PreTrainedModel

from lightning_vocab.rows.locate import find_split

Phase = Literal["frozen", "embeddings", "full"]
PHASES: tuple[Phase, ...] = get_args(Phase)  # each trains what the one before it trains, and more


@dataclass(frozen=True, eq=False)
class ParameterRoles:
    """The parameters of one causal language model by role; each parameter is listed once.

    Args:
        new_rows: New rows and their head bias, where the model is split.
        old_rows: Old rows and their head bias, where the model is split.
        embedding: The whole input and output embedding, where the model is not split.
        backbone: Every other parameter of the model.
    """

    new_rows: tuple[nn.Parameter, ...]
    old_rows: tuple[nn.Parameter, ...]
    embedding: tuple[nn.Parameter, ...]
    backbone: tuple[nn.Parameter, ...]

    @property
    def is_split(self) -> bool:
        """Whether old and new rows are parameters of their own."""
        return bool(self.new_rows)

    def everything(self) -> tuple[nn.Parameter, ...]:
        """All parameters of the model."""
        return self.new_rows + self.old_rows + self.embedding + self.backbone

    def in_phase(self, phase: Phase, *, old_rows_masked: bool = False) -> tuple[nn.Parameter, ...]:
        """The parameters that a phase trains; a mask takes the old rows of a split model out.

        Rows of an ordinary matrix cannot be frozen apart, so its whole embedding is in every phase.
        """
        chosen = self.new_rows + self.embedding
        if phase != "frozen" and not old_rows_masked:
            chosen += self.old_rows
        if phase == "full":
            chosen += self.backbone
        return chosen


def parameter_roles(model: PreTrainedModel) -> ParameterRoles:
    """The roles of the parameters of a causal language model, split or not."""
    split = find_split(model)
    if split is None:
        new, old, embedding = [], [], embedding_parameters(model)
    else:
        matrices = [part.rows for part in split]
        new = [p for rows in matrices for p in (rows.new, rows.new_bias) if p is not None]
        old = [p for rows in matrices for p in (rows.old, rows.old_bias) if p is not None]
        embedding = []
    known = {id(parameter) for parameter in (*new, *old, *embedding)}
    backbone = [parameter for parameter in model.parameters() if id(parameter) not in known]
    return ParameterRoles(_once(new), _once(old), _once(embedding), _once(backbone))


def embedding_parameters(model: PreTrainedModel) -> list[nn.Parameter]:
    """All parameters of the input embedding and the head of ``model``, a tied one once."""
    parts = (model.get_input_embeddings(), model.get_output_embeddings())
    return list(_once(parameter for part in parts for parameter in part.parameters()))


def _once(parameters: Iterable[nn.Parameter]) -> tuple[nn.Parameter, ...]:
    """Each object once, in order: by identity, for equal values say nothing about a tie."""
    return tuple({id(parameter): parameter for parameter in parameters}.values())
