"""Whether a stream has every document once an epoch, in rows as the cache has them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy
import pyarrow  # type: ignore[import-untyped]  # it ships no types
import pyarrow.parquet  # type: ignore[import-untyped]  # it ships no types
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from lightning_vocab.data.buffers import BufferPlace, Reader, ShuffledBuffers
from lightning_vocab.data.documents import read_documents
from lightning_vocab.data.rows import Collate, PackedRows
from lightning_vocab.data.shards import Shard, StreamedDocuments, shards_of
from lightning_vocab.data.sources import TextSource
from lightning_vocab.data.streamed_rows import StreamedRows, pack
from lightning_vocab.data.tokenise import Layout, tokenise
from tests.conftest import TEXTS

BLOCK_SIZE = 8


def in_memory(sizes: list[int]) -> tuple[list[Shard], list[str]]:
    """Shards of so many documents, and all documents; every fifth is blank and none of them."""
    texts = [
        [f"{number}.{n}" if n % 5 != 3 else " " for n in range(size)]
        for number, size in enumerate(sizes)
    ]
    made = [datasets.Dataset.from_dict({"text": each}).to_iterable_dataset() for each in texts]
    source = TextSource("numbers.txt", split="train")
    shards = [Shard(source, str(index), dataset) for index, dataset in enumerate(made)]
    return shards, sorted(text for each in texts for text in each if text != " ")


def first_epochs(buffers: ShuffledBuffers, count: int) -> list[tuple[BufferPlace, list[str]]]:
    """The buffers of the first epochs of a process; none if it has no document."""
    found = []
    with suppress(ValueError):
        for place, texts in buffers.read(BufferPlace()):
            if place.epoch >= count:
                break
            found.append((place, texts))
    return found


SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=12)


@pytest.mark.slow
@given(
    sizes=SIZES,
    num_replicas=st.integers(1, 3),
    num_workers=st.integers(1, 3),
    buffer_size=st.integers(1, 30),
)
def test_epoch_of_all_processes_has_every_document_once(
    sizes: list[int], num_replicas: int, num_workers: int, buffer_size: int
) -> None:
    shards, texts = in_memory(sizes)
    found: dict[int, list[str]] = {0: [], 1: []}
    for rank in range(num_replicas):
        for worker in range(num_workers):
            reader = Reader(rank, num_replicas, worker, num_workers)
            buffers = ShuffledBuffers(shards, reader, seed=7, buffer_size=buffer_size)
            for place, each in first_epochs(buffers, 2):
                found[place.epoch] += each
    assert sorted(found[0]) == sorted(found[1]) == texts


@pytest.mark.slow
@given(sizes=SIZES, buffer_size=st.integers(1, 30), number=st.integers(0, 3))
def test_every_buffer_is_found_again_by_its_place(
    sizes: list[int], buffer_size: int, number: int
) -> None:
    shards, _ = in_memory(sizes)
    buffers = ShuffledBuffers(shards, Reader(0, 2, 0, 1), seed=7, buffer_size=buffer_size)
    whole = first_epochs(buffers, 3)
    for start in range(number, len(whole), 4):
        again = islice(buffers.read(whole[start][0]), len(whole) - start)
        assert list(again) == whole[start:]


def test_order_differs_between_epochs_and_seeds_and_mixes_shards() -> None:
    shards, _ = in_memory([200, 200])

    def epochs(seed: int) -> list[list[str]]:
        buffers = ShuffledBuffers(shards, Reader(), seed=seed, buffer_size=100)
        found: list[list[str]] = [[], []]
        for place, texts in first_epochs(buffers, 2):
            found[place.epoch] += texts
        return found

    first, second = epochs(7)
    assert first != second
    assert sorted(first) == sorted(second)
    assert epochs(7) == [first, second]
    assert epochs(8)[0] != first
    in_first_half = sum(text.startswith("0.") for text in first[: len(first) // 2])
    assert 40 < in_first_half < 120


def test_process_without_a_document_is_told() -> None:
    shards, _ = in_memory([1])
    buffers = ShuffledBuffers(shards, Reader(1, 2, 0, 1), seed=7, buffer_size=4)
    with pytest.raises(ValueError, match="No text for process 2 of 2"):
        next(buffers.read(BufferPlace()))


@pytest.mark.slow
def test_a_process_that_gets_the_blank_file_of_an_epoch_goes_on_with_the_next() -> None:
    blank = datasets.Dataset.from_dict({"text": [" "]}).to_iterable_dataset()
    shards, _ = in_memory([1])  # which of two processes reads it is drawn anew
    shards.append(Shard(shards[0].source, "1", blank))
    for seed in range(4):
        buffers = ShuffledBuffers(shards, Reader(0, 2, 0, 1), seed=seed, buffer_size=4)
        for _, (place, _) in zip(range(60), buffers.read(BufferPlace()), strict=False):
            last = place.epoch
        assert last > 60


@given(length=st.integers(0, 40), block_size=st.integers(2, 9))
def test_packed_rows_hold_every_token_as_a_target_once(length: int, block_size: int) -> None:
    rows, left = pack(numpy.arange(length), block_size)
    assert [*rows[:, 1:].ravel(), *left[min(1, len(rows)) :]] == [*range(min(1, len(rows)), length)]
    assert len(left) < block_size


def lines(folder: Path, *texts: str) -> TextSource:
    folder.mkdir(exist_ok=True)
    (folder / "a.txt").write_text("\n".join(texts))
    return TextSource(str(folder), split="train")


def streamed(source: TextSource, tokenizer: Any, kind: Any = "packed") -> StreamedRows:
    layout = Layout(kind, BLOCK_SIZE)
    options: dict[str, Any] = {"batch_size": 1, "shuffle_buffer": 1}
    return StreamedRows(shards_of(source), tokenizer, layout, Collate(0), **options)


def test_unshuffled_stream_gives_the_rows_of_the_cache(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    source = lines(tmp_path, *TEXTS[:2] * 3)
    documents = read_documents(source, str(tmp_path / "cache"))
    stored = tokenise(documents, tokenizer, Layout("packed", BLOCK_SIZE))
    cached = PackedRows([stored], BLOCK_SIZE, tokenizer.bos_token_id)
    # All but the last, which the cache moves back, while a stream goes on.
    wanted = [Collate(0)([cached[index]]) for index in range(len(cached) - 1)]
    for (batch, _), expected in zip(streamed(source, tokenizer), wanted, strict=False):
        assert {key: part.tolist() for key, part in batch.items()} == {
            key: part.tolist() for key, part in expected.items()
        }
    assert len(wanted) > 5


def test_padded_stream_gives_the_rows_of_the_cache(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    source = lines(tmp_path, "the cat", TEXTS[0])
    documents = read_documents(source, str(tmp_path / "cache"))
    wanted = tokenise(documents, tokenizer, Layout("padded", BLOCK_SIZE))
    rows = islice(streamed(source, tokenizer, "padded"), len(wanted))
    assert [batch["input_ids"][0].tolist() for batch, _ in rows] == wanted["input_ids"]


def write(folder: Path, kind: str) -> TextSource:
    """Two files of one kind, the first of which ends in a blank document."""
    folder.mkdir()
    for name, texts in (("a", ["one", "two", " "]), ("b", ["three"])):
        rows = "\n".join(json.dumps({"body": text}) for text in texts)
        if kind == "txt":
            (folder / f"{name}.txt").write_text("\n".join(texts), encoding="utf-8-sig")
        elif kind == "jsonl":
            (folder / f"{name}.jsonl").write_text(rows)
        elif kind == "jsonl.gz":
            (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
        else:
            table = pyarrow.table({"body": texts, "n": range(len(texts))})
            pyarrow.parquet.write_table(table, folder / f"{name}.parquet")
    return TextSource(str(folder), text_field="body", split="train")


@pytest.mark.parametrize("kind", ["txt", "jsonl", "jsonl.gz", "parquet"])
def test_files_of_every_kind_are_read_without_a_copy(tmp_path: Path, kind: str) -> None:
    source = write(tmp_path / "text", kind)
    assert list(StreamedDocuments(source)) == ["one", "two", "three"]
    shards = shards_of(source)
    assert [(shard.num_bytes or 0) > 0 for shard in shards] == [True, True]
    assert [texts.to_pylist() for texts in shards[0].read(1, 9)] == [["two", " "]]
    assert [each.name for each in tmp_path.iterdir()] == ["text"]


def test_first_documents_of_a_source_are_one_shard(tmp_path: Path) -> None:
    path = write(tmp_path / "text", "jsonl").path
    source = TextSource(path, text_field="body", split="train", max_documents=3)
    assert list(StreamedDocuments(source)) == ["one", "two"]
    assert len(shards_of(source)) == 1


def test_hub_data_set_is_streamed_and_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load(*args: Any, **options: Any) -> datasets.IterableDataset:
        asked.append((args, options["split"], options["streaming"]))
        table = datasets.Dataset.from_dict({"body": ["x", "y"], "n": [1, 2]})
        return table.to_iterable_dataset(num_shards=2)

    def builder(*args: Any) -> Any:
        return SimpleNamespace(hash="of the newest commit")

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    source = TextSource("owner/texts", "body", split="train", name="th")
    assert all("of the newest commit" in shard.name for shard in shards_of(source))
    assert list(StreamedDocuments(source)) == ["x", "y"]
    assert len(shards_of(source)) == 2
    assert asked[0] == (("owner/texts", "th"), "train", True)
    with pytest.raises(ValueError, match=r"Expected the column 'text' in owner/texts"):
        StreamedDocuments(TextSource("owner/texts", split="train")).check()
    with pytest.raises(ValueError, match=r"Expected text in the column 'n' of 'owner/texts', got"):
        StreamedDocuments(TextSource("owner/texts", "n", split="train")).check()


def test_demo_text_can_be_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_vocab.demo import corpus

    def code(split: str) -> Iterator[str]:
        yield from (f"{split} one", f"{split} two")

    monkeypatch.setattr(corpus, "code", code)
    source = TextSource("demo:code", split="validation")
    assert list(StreamedDocuments(source)) == ["validation one", "validation two"]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"", {}, "No text in"),
        (b" \n \n", {}, "No text in"),
        (b"x\n\xff\n", {}, r"a\.txt is not UTF-8: line 2, byte 1"),
        (b"x", {"split": "train[:5%]"}, r"name of one split to stream .*max_documents"),
        (b"x", {"split": "test"}, "has no split 'test'"),
    ],
    ids=["empty", "blank", "not utf-8", "slice", "split"],
)
def test_what_is_wrong_with_a_streamed_file_is_told(
    tmp_path: Path, content: bytes, options: dict[str, Any], message: str
) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    source = TextSource(str(tmp_path / "a.txt"), **{"split": "train", **options})
    with pytest.raises(ValueError, match=message):
        StreamedDocuments(source).check()
