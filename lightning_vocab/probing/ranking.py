"""Which initializer is best, and where a difference is noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from lightning_vocab.functional.bootstrap import ratio_interval, resampled_sums

Verdict = Literal["best", "noise", "worse"]

NUM_RESAMPLES = 2000
FEWEST_DOCUMENTS = 5
"""With fewer documents a bootstrap says nothing, and every difference counts as noise."""


@dataclass(frozen=True)
class Standing:
    """Where an initializer stands.

    Args:
        label: The initializer.
        bits_per_byte: Mean over the repeats of the bits per byte of all documents.
        difference: To the best one: 0 for the best itself, else not negative.
        interval: 95 % interval of the difference; None for the best and where there are too few
            documents.
        verdict: ``best``; ``noise`` where the interval holds 0 or there is none; else ``worse``.
    """

    label: str
    bits_per_byte: float
    difference: float
    interval: tuple[float, float] | None
    verdict: Verdict


def rank(labels: Sequence[str], nats: Tensor, num_bytes: Tensor, seed: int = 0) -> list[Standing]:
    """Order initializers by bits per byte, each with an interval of its difference to the best.

    A paired bootstrap: each resample draws documents (a Poisson number of times each) and repeats,
    the same for all initializers, which were scored on the same documents and trained on the same
    order of text in each repeat. Of ``n`` repeats ``n - 1`` are drawn with replacement, which makes
    their variance that of a mean of ``n`` without bias (Rao & Wu 1988, "Resampling inference with
    complex survey data"); of three repeats it stays a rough estimate, and of one it is unknown and
    the interval is about documents alone. Each interval stands for itself: with many initializers
    one in twenty that are in truth as good is called worse.

    Args:
        labels: The initializers.
        nats: Of each initializer, repeat and document, ``(initializers, repeats, documents)``.
        num_bytes: UTF-8 bytes of each document, ``(documents,)``.
        seed: Seed of the resamples.

    Raises:
        ValueError: If the shapes do not fit.

    Example:
        >>> nats = torch.tensor([[[30.0] * 9], [[20.0] * 9], [[20.0] * 9]])
        >>> found = rank(["first", "second", "third"], nats, torch.full((9,), 10))
        >>> [(each.label, each.verdict) for each in found]
        [('second', 'best'), ('third', 'noise'), ('first', 'worse')]
    """
    if nats.shape[::2] != (len(labels), len(num_bytes)) or nats.ndim != 3 or not nats.numel():
        raise ValueError(
            f"Expected nats of {len(labels)} initializers, some repeats and {len(num_bytes)} "
            f"documents, got the shape {tuple(nats.shape)}."
        )
    bits = nats.double() / math.log(2)
    means = bits.mean(dim=1).sum(dim=1) / num_bytes.sum()
    order = means.sort(stable=True).indices.tolist()
    best = order[0]
    resampled, sizes = _resampled(bits, num_bytes, Generator().manual_seed(seed))
    standings = []
    for place in order:
        interval = None
        if place != best and len(num_bytes) >= FEWEST_DOCUMENTS:
            interval = ratio_interval(resampled[:, place] - resampled[:, best], sizes)
        verdict: Verdict = "noise" if interval is None or interval[0] <= 0 else "worse"
        difference = float(means[place] - means[best])
        standings.append(
            Standing(
                labels[place],
                float(means[place]),
                difference,
                interval,
                "best" if place == best else verdict,
            )
        )
    return standings


def _resampled(bits: Tensor, num_bytes: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Bits of each resample and initializer ``(resamples, initializers)``, and its bytes."""
    num_methods, num_repeats, num_documents = bits.shape
    columns = torch.cat([bits.reshape(-1, num_documents), num_bytes.double()[None]])
    sums = resampled_sums(columns.T, NUM_RESAMPLES, generator)
    shape = (NUM_RESAMPLES, max(1, num_repeats - 1))
    drawn = torch.randint(num_repeats, shape, generator=generator)
    weights = torch.zeros(NUM_RESAMPLES, num_repeats, dtype=torch.float64)
    weights.scatter_add_(1, drawn, torch.full(shape, 1 / shape[1], dtype=torch.float64))
    of_repeats = sums[:, :-1].view(NUM_RESAMPLES, num_methods, num_repeats)
    return (of_repeats * weights.unsqueeze(1)).sum(dim=2), sums[:, -1]
