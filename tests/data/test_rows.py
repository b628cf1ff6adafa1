"""Whether rows and batches lose no token, train on none twice and mask by position."""

from __future__ import annotations

import pickle
from pathlib import Path

import datasets
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_vocab.data.rows import IGNORED, Collate, PackedRows, Row, StoredRows

START = 99


def stream(*documents: list[int]) -> datasets.Dataset:
    features = datasets.Features({"input_ids": datasets.List(datasets.Value("int32"))})
    return datasets.Dataset.from_dict({"input_ids": list(documents)}, features)


def stored(*lengths: int) -> datasets.Dataset:
    return datasets.Dataset.from_dict(
        {
            "input_ids": [list(range(length)) for length in lengths],
            "num_context": [1 for _ in lengths],
            "num_bytes": list(lengths),
        }
    )


def row(*ids: int, num_context: int = 1) -> Row:
    return Row(input_ids=numpy.array(ids), num_context=num_context)


@given(
    sizes=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=3),
    block_size=st.integers(2, 8),
)
def test_packed_rows_train_on_every_token_behind_the_start_once(
    sizes: list[list[int]], block_size: int
) -> None:
    numbers = iter(range(1000))
    sources = [[[next(numbers) for _ in range(size)] for size in source] for source in sizes]
    rows = PackedRows([stream(*source) for source in sources], block_size, START)
    targets = [
        int(id_)
        for index in range(len(rows))
        for id_ in rows[index]["input_ids"][rows[index]["num_context"] :]
    ]
    assert targets == [id_ for source in sources for document in source for id_ in document]


@given(size=st.integers(1, 30), block_size=st.integers(2, 8))
def test_packed_rows_are_full(size: int, block_size: int) -> None:
    rows = PackedRows([stream(list(range(size)))], block_size, START)
    lengths = {len(rows[index]["input_ids"]) for index in range(len(rows))}
    assert lengths == {min(block_size, size + 1)}


def test_last_packed_row_ends_with_the_stream_and_masks_what_was_trained() -> None:
    rows = PackedRows([stream([1, 2, 3], [4, 5])], block_size=4, first_id=START)
    assert [(list(rows[i]["input_ids"]), rows[i]["num_context"]) for i in range(2)] == [
        ([START, 1, 2, 3], 1),
        ([2, 3, 4, 5], 2),
    ]


def test_stream_without_first_id_begins_with_its_first_document() -> None:
    rows = PackedRows([stream([7, 8, 9])], block_size=3, first_id=None)
    assert list(rows[0]["input_ids"]) == [7, 8, 9]


def test_packed_rows_read_what_is_on_disk(tmp_path: Path) -> None:
    stream([1, 2, 3], [4, 5]).save_to_disk(str(tmp_path / "rows"), num_shards=2)
    rows = PackedRows([datasets.load_from_disk(str(tmp_path / "rows"))], 6, START)
    assert list(rows[0]["input_ids"]) == [START, 1, 2, 3, 4, 5]


def test_packed_rows_go_to_another_process_without_their_content() -> None:
    rows = PackedRows([stream([1, 2, 3])], block_size=4, first_id=START)
    _ = rows[0]
    assert "_chunks" not in rows.__getstate__()
    assert list(pickle.loads(pickle.dumps(rows))[0]["input_ids"]) == [START, 1, 2, 3]


@pytest.mark.parametrize("index", [-1, 2])
def test_row_outside_is_refused(index: int) -> None:
    with pytest.raises(IndexError):
        PackedRows([stream([1, 2, 3, 4, 5])], 4, START)[index]
    with pytest.raises(IndexError):
        StoredRows(stored(3, 2))[index]


def test_empty_rows_fill_up_and_have_neither_target_nor_byte() -> None:
    rows = StoredRows(stored(3, 2, 2), multiple_of=2, filler_id=START)
    batch = Collate(pad_id=0)([rows[index] for index in range(len(rows))])
    assert len(rows) == 4
    assert batch["labels"][3].tolist() == [IGNORED] * 3
    assert batch["num_bytes"].tolist() == [3, 2, 2, 0]
    assert batch["attention_mask"][3].tolist() == [1, 0, 0]


def test_real_end_token_is_a_target_though_padding_has_its_id() -> None:
    batch = Collate(pad_id=0)([row(0, 5, 0), row(0, 5, 6, 7, 0)])
    assert batch["input_ids"][0].tolist() == [0, 5, 0, 0, 0]
    assert batch["labels"][0].tolist() == [IGNORED, 5, 0, IGNORED, IGNORED]
    assert batch["attention_mask"][0].tolist() == [1, 1, 1, 0, 0]


def test_context_is_read_but_is_no_target() -> None:
    batch = Collate(pad_id=0)([row(4, 5, 6, 7, num_context=2)])
    assert batch["labels"].tolist() == [[IGNORED, IGNORED, 6, 7]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1]]


def test_training_batch_has_no_bytes() -> None:
    assert set(Collate(pad_id=0)([row(4, 5)])) == {"input_ids", "attention_mask", "labels"}
