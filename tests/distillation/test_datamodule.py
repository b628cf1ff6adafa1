from __future__ import annotations

from logging import LogRecord
from pathlib import Path
from typing import Any
from unittest import TestCase

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_vocab.distillation import DistillationDataModule
from lightning_vocab.distillation.snippets import Mining
from lightning_vocab.vocabulary import AddTokens, ContinuedBPE
from tests.conftest import NEW_TEXTS, TEXTS
from tests.distillation.conftest import make_data, write_lines


@pytest.fixture
def ready(tied_folder: str, text: Path) -> DistillationDataModule:
    data = make_data(tied_folder, text)
    data.prepare_data()
    data.setup("fit")
    return data


@pytest.mark.slow
def test_student_and_teacher_read_the_same_text(ready: DistillationDataModule) -> None:
    base = ready.base_tokenizer
    for batch in ready.train_dataloader():
        assert int(batch["teacher_ids"].max()) < len(base)
        for row in range(len(batch["input_ids"])):
            mine = batch["input_ids"][row][batch["attention_mask"][row] == 1]
            theirs = batch["teacher_ids"][row][batch["teacher_mask"][row] == 1]
            assert ready.tokenizer.decode(mine) == base.decode(theirs)
            for place, position in enumerate(batch["teacher_positions"][row].tolist()):
                if position >= 0:
                    read = base.decode(theirs[: position + 1])
                    assert ready.tokenizer.decode(mine[: place + 1]) == read


@pytest.mark.slow
def test_an_epoch_has_every_snippet_once(ready: DistillationDataModule) -> None:
    loader = ready.train_dataloader()
    rows = [row for batch in loader for row in batch["input_ids"]]
    assert len(rows) == len(loader.dataset)  # type: ignore[arg-type]  # torch declares no length
    assert 0 < len(rows) <= 12 * 10


@pytest.mark.slow
def test_a_second_run_reads_the_snippets_that_are_kept(
    ready: DistillationDataModule, tied_folder: str, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mine(*_: object) -> None:
        raise AssertionError("mined again")

    monkeypatch.setattr(Mining, "mine", mine)
    again = make_data(tied_folder, text)
    again.prepare_data()
    again.setup("fit")
    pairs = zip(ready.train_dataloader(), again.train_dataloader(), strict=True)
    assert all(torch.equal(one["input_ids"], other["input_ids"]) for one, other in pairs)
    with pytest.raises(AssertionError, match="mined again"):
        make_data(tied_folder, text, snippet_length=9).prepare_data()


@pytest.mark.slow
def test_tokens_that_occur_too_seldom_are_named_and_read_as_pieces(
    tied_folder: str, text: Path
) -> None:
    write_lines(text / "train.jsonl", [*TEXTS * 3, *["zebra zebra zebra zebra"] * 3, "quartz"])
    data = make_data(tied_folder, text)
    data.prepare_data()
    with pytest.warns(UserWarning, match=r"new tokens of 12 occur fewer than 4 times") as record:
        data.setup("fit")
    assert "'Ġju' (0), 'artz' (1)" in str(record[0].message)
    held = set(data.held_ids)
    taught = set(data.expanded.expansion.new_ids) - held  # type: ignore[union-attr]  # it has grown
    assert held
    assert taught
    seen = {int(id) for batch in data.train_dataloader() for id in batch["input_ids"].flatten()}
    assert seen.isdisjoint(held)
    assert taught <= seen


def test_forty_tokens_that_are_held_are_all_in_the_log(tied_folder: str, text: Path) -> None:
    write_lines(text / "train.jsonl", ["the <|seen|> cat"] * 9)
    names = [f"<|held_{place}|>" for place in range(40)]
    data = make_data(tied_folder, text, extender=AddTokens([*names, "<|seen|>"]))
    data.prepare_data()
    with (
        TestCase().assertLogs("lightning.pytorch") as log,
        pytest.warns(UserWarning, match=r"40 new tokens of 41 .* …\. Text that"),
    ):
        data.setup("fit")
    lines = map(LogRecord.getMessage, log.records)
    (said,) = (line for line in lines if line.startswith("New tokens that occur fewer"))
    assert all(f"{name!r} (0)" in said for name in names)
    assert "seen" not in said


def test_text_that_uses_no_new_token_often_enough_is_refused(tied_folder: str, text: Path) -> None:
    write_lines(text / "train.jsonl", [*TEXTS, *NEW_TEXTS])
    data = make_data(tied_folder, text, num_snippets=100, min_snippets=90)
    data.prepare_data()
    with pytest.raises(ValueError, match=r"None of 12 new tokens occurs 90 times .*min_snippets"):
        data.setup("fit")


def test_one_new_token_is_enough(tied_folder: str, text: Path) -> None:
    data = make_data(tied_folder, text, extender=ContinuedBPE(num_new_tokens=1))
    data.prepare_data()
    data.setup("fit")
    assert len(next(iter(data.train_dataloader()))["input_ids"]) == 8


def test_text_without_a_word_is_refused(tied_folder: str, text: Path) -> None:
    write_lines(text / "train.jsonl", [" ", ""])
    with pytest.raises(ValueError, match="No text in"):
        make_data(tied_folder, text).prepare_data()


def test_no_text_at_all_is_refused(tied_folder: str, text: Path) -> None:
    with pytest.raises(MisconfigurationException, match="mine snippets from: give train"):
        make_data(tied_folder, text, train=None).prepare_data()


def test_set_up_without_snippets_says_what_to_call(
    ready: DistillationDataModule, tied_folder: str, text: Path
) -> None:
    other = make_data(tied_folder, text, seed=8)
    with pytest.raises(FileNotFoundError, match=r"No snippets .* Call prepare_data\(\) first"):
        other.setup("fit")
    other.setup("validate")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expansion_dir": None}, "give expansion_dir"),
        ({"min_snippets": 0}, r"min_snippets from 1 to num_snippets \(10\), got 0"),
        ({"min_snippets": 11}, r"min_snippets from 1 to num_snippets \(10\), got 11"),
        ({"snippet_length": 0}, "snippet_length of at least 1"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: dict[str, Any], message: str, text: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        make_data("demo", text, **options)
