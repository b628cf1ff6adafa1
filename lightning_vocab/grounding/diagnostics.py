"""What grounding is judged by: spectra of the new rows, their likeness to meanings, retrieval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_vocab.data.rows import Row
from lightning_vocab.functional.representation_similarity import representation_similarity
from lightning_vocab.grounding.retrieval import retrieve
from lightning_vocab.grounding.rows import GroundingRows
from lightning_vocab.loss import NextTokenLoss
from lightning_vocab.rows.locate import find_split
from lightning_vocab.watched_rows import RowSpectra, WatchedRows


@dataclass(frozen=True, eq=False)
class ReferenceSpaces:
    """Where the described tokens lie in spaces that do not move while the rows train.

    Args:
        ids: Ids of new tokens, ``(num_tokens,)``.
        vectors: For each space its name and one vector a token, ``(num_tokens, width)``; zeros
            where the space does not know the token.
    """

    ids: Tensor
    vectors: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Diagnostics:
    """One measurement.

    Args:
        numbers: Every number by name; those of one matrix end in ``_input`` (also the one matrix of
            a tied model) or ``_output``.
        spectra: Rows and singular values of each matrix.
    """

    numbers: dict[str, float]
    spectra: list[RowSpectra]


@torch.no_grad()
def measure_grounding(
    loss: NextTokenLoss,
    watched: Sequence[WatchedRows],
    reference: ReferenceSpaces,
    rows: GroundingRows | Sequence[Row],
) -> Diagnostics:
    """Measure the new rows of an expanded model as they are now.

    The numbers of each matrix are those of `EmbeddingSpectrumMonitor` and, for each reference space
    and matrix, ``rsa_<space>_pearson`` and ``rsa_<space>_spearman`` (`representation_similarity`,
    -1 to 1). Of all matrices together: ``retrieval_top1_share`` and
    ``retrieval_mean_reciprocal_rank`` (`retrieve`, 0 to 1), and how many tokens and descriptions
    were compared.

    Args:
        loss: The loss over the expanded model.
        watched: Its matrices, as `watch` gives them.
        reference: The spaces.
        rows: Rows from descriptions to tokens.

    Raises:
        ValueError: If the model is not expanded, or an id of the reference is not new.
    """
    split = find_split(loss.model)
    if split is None:
        raise ValueError(f"Expected an expanded model, got {type(loss.model).__name__}.")
    places = places_of(reference.ids, split[0].rows.new_ids.cpu())
    spectra = [each.measure() for each in watched]
    numbers: dict[str, float] = {}
    for part in spectra:
        numbers |= part.numbers
        new = part.new[places.to(part.new.device)]
        for name, vectors in reference.vectors.items():
            found = representation_similarity(new, vectors)
            numbers[f"rsa_{name}_pearson_{part.role}"] = found.pearson
            numbers[f"rsa_{name}_spearman_{part.role}"] = found.spearman
            numbers[f"rsa_{name}_num_tokens_{part.role}"] = float(found.num_rows)
    retrieval = retrieve(loss, rows)
    numbers["retrieval_top1_share"] = retrieval.top1_share
    numbers["retrieval_mean_reciprocal_rank"] = retrieval.mean_reciprocal_rank
    numbers["retrieval_num_descriptions"] = float(retrieval.num_rows)
    return Diagnostics(numbers, spectra)


def places_of(ids: Tensor, new_ids: Tensor) -> Tensor:
    """Places of ids among the new rows, ``(num_ids,)``.

    Args:
        ids: Ids of new tokens, ``(num_ids,)``.
        new_ids: Ids of all new rows, ascending, ``(num_new,)``.

    Raises:
        ValueError: If an id is not among them.
    """
    if not (known := torch.isin(ids, new_ids)).all():
        raise ValueError(
            f"Expected ids of new tokens, got {int((~known).sum())} others of {len(ids)}, such as "
            f"{int(ids[~known][0])}: the reference belongs to another vocabulary."
        )
    return torch.searchsorted(new_ids, ids)
