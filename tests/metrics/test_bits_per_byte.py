from __future__ import annotations

import math
import multiprocessing
import re
from pathlib import Path

import pytest
import torch
from torch import distributed

from lightning_vocab.metrics import BitsPerByte

TEXT = "the cat sat"
CUTS = {"bytes": r"(?s).", "pairs": r"(?s)..?", "words": r"\S+|\s+"}


def uniform_nats(token: str) -> float:
    """Nats of a token under a model that gives every byte probability 1/256."""
    return len(token.encode()) * math.log(256)


@pytest.mark.parametrize("pattern", CUTS.values(), ids=CUTS.keys())
def test_value_does_not_depend_on_the_tokenization(pattern: str) -> None:
    tokens = re.findall(pattern, TEXT)
    assert "".join(tokens) == TEXT
    metric = BitsPerByte()
    metric.update(torch.tensor([uniform_nats(token) for token in tokens]), len(TEXT.encode()))
    assert metric.compute().item() == pytest.approx(8.0)


def test_batches_add_up_by_bytes_and_not_by_means() -> None:
    metric = BitsPerByte()
    metric.update(torch.tensor([1.0, 2.0]), 1)
    metric.update(torch.tensor(3.0), torch.tensor([4, 5]))
    assert metric.compute().item() == pytest.approx(6.0 / (math.log(2) * 10))


def test_many_updates_lose_no_digits() -> None:
    # In float32 alone 2**24 + 1 is 2**24: each of these additions would be lost.
    metric = BitsPerByte()
    metric.update(torch.tensor(2.0**24), 2**24)
    for _ in range(1000):
        metric.update(torch.tensor(1.0), 0)
    expected = (2**24 + 1000) / (math.log(2) * 2**24)
    assert metric.compute().item() == pytest.approx(expected, rel=2e-7)


def test_reset_forgets_everything() -> None:
    metric = BitsPerByte()
    metric.update(torch.tensor(5.0), 3)
    metric.reset()
    metric.update(torch.tensor(math.log(2)), 1)
    assert metric.compute().item() == pytest.approx(1.0)


def test_a_model_that_diverged_scores_nan() -> None:
    metric = BitsPerByte()
    metric.update(torch.tensor([1.0, torch.nan]), 2)
    assert metric.compute().isnan()


def test_no_byte_at_all_is_refused() -> None:
    metric = BitsPerByte()
    metric.update(torch.zeros(0), 0)
    with pytest.raises(ValueError, match="at least one byte"):
        metric.compute()


def _score_on_rank(rank: int, folder: str) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    metric = BitsPerByte()
    metric.update(torch.tensor([1.0, 5.0][: rank + 1]), [4, 6][rank])
    torch.save(metric.compute(), f"{folder}/rank{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.ddp
def test_ranks_sum_their_nats_and_their_bytes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")  # the children need not import torch again
    ranks = [context.Process(target=_score_on_rank, args=(r, str(tmp_path))) for r in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    expected = (1.0 + 6.0) / (math.log(2) * (4 + 6))
    values = [torch.load(tmp_path / f"rank{rank}.pt").item() for rank in range(2)]
    assert values == pytest.approx([expected, expected])
