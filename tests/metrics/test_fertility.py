from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path

import pytest
import torch
from torch import distributed

from lightning_vocab.metrics.fertility import Fertility
from lightning_vocab.vocabulary.measuring.measured_text import measure_text
from tests.conftest import TEXTS, make_tokenizer

LINES = [*TEXTS, "the cat, a dog", "ไปบ้าน log", "text of 1 model"]


def test_value_is_that_of_the_whole_text() -> None:
    tokenizer = make_tokenizer()
    metric = Fertility(tokenizer)
    metric.update(LINES)
    found = metric.compute()
    expected = measure_text({"a": tokenizer}, LINES).figures("a", tokenizer)
    expected.pop("intervals")
    assert {name: found[name] for name in expected} == expected
    assert found["tokens_per_word_low"] < found["tokens_per_word"] < found["tokens_per_word_high"]


def test_batches_add_up_by_sums_and_not_by_means() -> None:
    metric = Fertility(make_tokenizer(), num_resamples=0)
    whole = Fertility(make_tokenizer(), num_resamples=0)
    for batch in (LINES[:1], [], LINES[1:4], [""], LINES[4:]):
        metric.update(batch)
    whole.update([*LINES, ""])
    assert metric.compute() == whole.compute()
    assert int(metric.num_documents) == len(LINES) + 1


def test_resamples_do_not_depend_on_the_order_of_updates() -> None:
    one, other = Fertility(make_tokenizer()), Fertility(make_tokenizer())
    for batch in (LINES[:2], LINES[2:]):
        one.update(batch)
    for batch in (LINES[2:], LINES[:2]):
        other.update(batch)
    assert one.compute() == pytest.approx(other.compute())


def test_what_does_not_apply_is_left_out() -> None:
    metric = Fertility(make_tokenizer())
    metric.update(["ไปบ้าน"])
    found = metric.compute()
    absent = {"tokens_per_word", "words_in_one_token_share", "tokens_per_byte_low"}
    assert not absent & found.keys()
    assert all(isinstance(value, float) for value in found.values())


def test_reset_forgets_everything_and_a_pickle_keeps_everything() -> None:
    metric = Fertility(make_tokenizer())
    metric.update(LINES)
    copied = pickle.loads(pickle.dumps(metric))
    metric.reset()
    metric.update(["the cat"])
    fresh = Fertility(make_tokenizer())
    fresh.update(["the cat"])
    assert metric.compute() == fresh.compute()
    fresh.reset()
    fresh.update(LINES)
    assert copied.compute() == fresh.compute()


def test_no_text_at_all_is_refused() -> None:
    metric = Fertility(make_tokenizer())
    metric.update([])
    with pytest.raises(ValueError, match="none came"):
        metric.compute()


@pytest.mark.parametrize("texts", ["the cat", ["the", 3]], ids=["string", "number"])
def test_what_is_no_text_is_refused(texts: list[str]) -> None:
    with pytest.raises(TypeError, match="string"):
        Fertility(make_tokenizer()).update(texts)


def _measure_on_rank(rank: int, folder: str) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    metric = Fertility(make_tokenizer())
    metric.update([LINES[:2], LINES[2:]][rank])
    torch.save(metric.compute(), f"{folder}/rank{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.ddp
def test_ranks_add_up_to_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")  # threads do not survive a fork
    context = multiprocessing.get_context("fork")  # the children need not import torch again
    ranks = [context.Process(target=_measure_on_rank, args=(r, str(tmp_path))) for r in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout=100)
    assert [process.exitcode for process in ranks] == [0, 0]
    metric = Fertility(make_tokenizer())
    metric.update(LINES[:2])
    metric.update(LINES[2:])
    for rank in range(2):
        assert torch.load(tmp_path / f"rank{rank}.pt") == pytest.approx(metric.compute())
