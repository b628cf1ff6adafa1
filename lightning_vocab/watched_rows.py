"""The new rows of a matrix beside a sample of its old rows, and the numbers that compare them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor
from transformers import PreTrainedModel

from lightning_vocab.functional.neighbours import nearest_cosine
from lightning_vocab.functional.spectrum import (
    effective_rank,
    mean_pairwise_cosine,
    row_norms,
    singular_values,
    stable_rank,
    top1_share,
)
from lightning_vocab.rows.locate import find_split
from lightning_vocab.rows.ties import is_tied

Role = Literal["input", "output"]


@dataclass(frozen=True)
class RowSpectra:
    """One measurement of one matrix.

    Args:
        role: Which matrix: ``input`` (also the one matrix of a tied model) or ``output``.
        new: The new rows, ``(num_new, dim)``.
        old: The sample of old rows, ``(num_sampled, dim)``.
        new_values: Singular values of the new rows.
        old_values: Singular values of the sample.
        numbers: The statistics by name, without a prefix.
    """

    role: Role
    new: Tensor
    old: Tensor
    new_values: Tensor
    old_values: Tensor
    numbers: dict[str, float]


class WatchedRows:
    """The rows of one matrix that a monitor looks at.

    What is known of the old rows is kept for as long as they stay the same, bit for bit, so that a
    measurement while they are frozen costs half. Memory: a copy of the sampled old rows.

    Args:
        role: Which matrix: ``input`` (also the one matrix of a tied model) or ``output``.
        read: Gives the new rows ``(num_new, dim)`` and the sampled old rows ``(num_sampled, dim)``
            as they are now; the latter are its caller's to keep.
    """

    def __init__(self, role: Role, read: Callable[[], tuple[Tensor, Tensor]]) -> None:
        self.role: Role = role
        self.read = read
        self._old: _Measured | None = None

    @torch.no_grad()
    def measure(self) -> RowSpectra:
        """Spectra and statistics of the rows as they are now."""
        rows, old_rows = self.read()
        new, old = _measured(rows), self._old
        if old is None or not torch.equal(old.rows, old_rows):
            old = self._old = _measured(old_rows)
        numbers: dict[str, float] = {}
        for age, measured in (("new", new), ("old", old)):
            for name, number in measured.numbers.items():
                numbers[f"{name}_{age}_{self.role}"] = number
        numbers[f"norm_ratio_{self.role}"] = float(new.median_norm / old.median_norm)
        nearest = nearest_cosine(new.rows, old.rows).values.mean()
        numbers[f"nearest_old_cosine_{self.role}"] = float(nearest)
        return RowSpectra(self.role, new.rows, old.rows, new.values, old.values, numbers)


@dataclass(frozen=True)
class _Measured:
    """Some rows, their singular values and what is read off them."""

    rows: Tensor
    values: Tensor
    median_norm: Tensor  # not a float, which cannot be divided by zero
    numbers: dict[str, float]


def _measured(rows: Tensor) -> _Measured:
    values = singular_values(rows)
    numbers = {
        "effective_rank": float(effective_rank(values)),
        "stable_rank": float(stable_rank(values)),
        "top1_share": float(top1_share(values)),
        "mean_pairwise_cosine": float(mean_pairwise_cosine(rows)),
    }
    return _Measured(rows, values, row_norms(rows).median, numbers)


def watch(
    model: PreTrainedModel, new_ids: Sequence[int] | None, base_len: int | None, seed: int
) -> list[WatchedRows]:
    """The input matrix of a model and, unless it is tied, its output matrix.

    The sample of old rows has as many rows as there are new ones, where there are that many; its
    ids are the same in both matrices and in ascending order.

    Args:
        model: A causal language model, split or not.
        new_ids: Ids of the new rows; None to take those of a split model.
        base_len: Tokens of the base tokenizer, where known: rows behind them have no token.
        seed: Seed of the sample.

    Raises:
        MisconfigurationException: If no new row is known, the ids do not fit the model, or there is
            no old row.
    """
    split = find_split(model)
    if split is not None:
        own_ids = split[0].rows.new_ids.tolist()
        _refuse_other_ids(new_ids, own_ids)
        sample = _sample_old(own_ids, split[0].rows.base_rows, base_len, seed)
        sources = [_split_source(part.rows.new, part.rows.old, sample) for part in split]
    elif new_ids is None:
        raise MisconfigurationException(
            "EmbeddingSpectrumMonitor cannot know the new rows of an ordinary embedding. Give "
            "new_ids or expansion_dir."
        )
    else:
        ids = sorted(set(new_ids))
        weights = _ordinary_weights(model, ids)
        sample = _sample_old(ids, len(weights[0]), base_len, seed)
        sources = [_ordinary_source(weight, ids, sample) for weight in weights]
    roles: tuple[Role, ...] = ("input",) if is_tied(model) else ("input", "output")
    return [WatchedRows(role, source) for role, source in zip(roles, sources, strict=False)]


def _split_source(new: Tensor, old: Tensor, sample: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    return lambda: (new.detach(), old.detach()[sample.to(old.device)])


def _ordinary_source(
    weight: Tensor, new_ids: list[int], sample: Tensor
) -> Callable[[], tuple[Tensor, Tensor]]:
    return lambda: (weight.detach()[new_ids], weight.detach()[sample.to(weight.device)])


def _ordinary_weights(model: PreTrainedModel, new_ids: list[int]) -> list[Tensor]:
    weights: list[Tensor] = []
    for part in (model.get_input_embeddings(), model.get_output_embeddings()):
        weight = part.weight
        if not isinstance(weight, Tensor) or weight.ndim != 2 or len(weight) <= new_ids[-1]:
            raise MisconfigurationException(
                f"EmbeddingSpectrumMonitor expected a matrix with a row for id {new_ids[-1]}, got "
                f"{type(part).__name__} with weight {tuple(getattr(weight, 'shape', ()))} in "
                f"{type(model).__name__}. Expand the model first."
            )
        weights.append(weight)
    return weights


def _sample_old(new_ids: Sequence[int], num_rows: int, base_len: int | None, seed: int) -> Tensor:
    """Ids of old rows that have a token, ascending, ``(num_sampled,)``."""
    is_old = torch.ones(num_rows, dtype=torch.bool)
    is_old[[id for id in new_ids if id < num_rows]] = False
    is_old[base_len if base_len is not None else num_rows :] = False
    pool = is_old.nonzero().squeeze(1)
    if len(pool) == 0:
        raise MisconfigurationException(
            f"EmbeddingSpectrumMonitor compares new rows with old ones, but all {num_rows} rows "
            "are new or without a token. Name the new rows only."
        )
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))
    return pool[order[: len(new_ids)]].sort().values


def _refuse_other_ids(given: Sequence[int] | None, own: Sequence[int]) -> None:
    if given is not None and set(given) != set(own):
        raise MisconfigurationException(
            f"EmbeddingSpectrumMonitor expected the {len(own)} new ids of the split rows (from "
            f"{own[0]} to {own[-1]}), got {len(set(given))} ids from {min(given)} to {max(given)}. "
            "Leave new_ids and expansion_dir out, or give the folder that the model was expanded "
            "with."
        )
