"""Whether rows hold every token once, in the frame that the tokenizer defines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from lightning_vocab.data.documents import Documents
from lightning_vocab.data.tokenise import Frame, Layout, frame_of, tokenise, windows
from lightning_vocab.vocabulary.folder import load_tokenizer
from tests.conftest import TEXTS, make_tokenizer

TOKENIZER = make_tokenizer()
END = TOKENIZER.eos_token_id
LONG = " ".join(TEXTS[:2])


def documents(*texts: str) -> Documents:
    return Documents(datasets.Dataset.from_dict({"text": list(texts)}), num_blank=0)


def rows_of(*texts: str, layout: Layout, tokenizer: Any = TOKENIZER) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = tokenise(documents(*texts), tokenizer, layout).to_list()
    return rows


def ids_of(text: str) -> list[int]:
    ids: list[int] = TOKENIZER.encode(text, add_special_tokens=False)
    return ids


def targets(rows: list[dict[str, Any]]) -> list[int]:
    return [id_ for row in rows for id_ in row["input_ids"][row["num_context"] :]]


@st.composite
def layouts(draw: st.DrawFn, kind: Any = "whole") -> Layout:
    block_size = draw(st.integers(2, 12))
    return Layout(kind, block_size, draw(st.integers(1, block_size - 1)))


@given(length=st.integers(1, 60), layout=layouts())
def test_every_token_but_the_first_is_a_target_of_one_window(length: int, layout: Layout) -> None:
    seen = [
        token
        for start, stop, num_context in windows(length, layout.block_size, layout.overlap)
        for token in range(start + num_context, stop)
    ]
    assert seen == list(range(1, length))


@given(length=st.integers(1, 60), layout=layouts())
def test_no_window_is_longer_than_the_block(length: int, layout: Layout) -> None:
    cut = windows(length, layout.block_size, layout.overlap)
    assert max(stop - start for start, stop, _ in cut) <= layout.block_size


@given(texts=st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=4), layout=layouts())
def test_whole_rows_score_every_token_and_count_every_byte_once(
    texts: list[str], layout: Layout
) -> None:
    rows = rows_of(*texts, layout=layout)
    assert len(targets(rows)) == sum(len(ids_of(text)) for text in texts)
    assert sum(row["num_bytes"] for row in rows) == sum(len(text.encode()) for text in texts)


def test_whole_rows_of_a_document_score_its_tokens_in_order() -> None:
    rows = rows_of(LONG, layout=Layout("whole", 8, 3))
    rows.sort(key=lambda row: -row["num_bytes"])  # the first window has the bytes
    assert rows[0]["num_context"] == 1
    assert rows[0]["input_ids"] == [END, *ids_of(LONG)[:7]]
    assert sorted(targets(rows)) == sorted(ids_of(LONG))


def test_later_window_repeats_the_end_of_the_one_before() -> None:
    ids = [END, *ids_of(LONG)]
    found = {tuple(row["input_ids"]) for row in rows_of(LONG, layout=Layout("whole", 8, 3))}
    assert {tuple(ids[0:8]), tuple(ids[5:13])} <= found


def test_bytes_of_a_long_document_stand_on_its_first_window_alone() -> None:
    rows = rows_of(LONG, layout=Layout("whole", 8, 3))
    with_bytes = [row for row in rows if row["num_bytes"]]
    assert [row["input_ids"][0] for row in with_bytes] == [END]
    assert with_bytes[0]["num_bytes"] == len(LONG)


@given(texts=st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=4), layout=layouts())
def test_every_whole_row_names_the_document_that_it_is_a_window_of(
    texts: list[str], layout: Layout
) -> None:
    rows = rows_of(*texts, layout=layout)
    for place, text in enumerate(texts):
        windows_of_it = [row for row in rows if row["document"] == place]
        assert sorted(targets(windows_of_it)) == sorted(ids_of(text))
        assert sum(row["num_bytes"] for row in windows_of_it) == len(text.encode())


@pytest.mark.slow
def test_several_processes_number_documents_like_one() -> None:
    texts, layout = documents("the cat", LONG, "a", "the dog", "b"), Layout("whole", 8, 2)
    one, two = (tokenise(texts, TOKENIZER, layout, num_proc=each).to_list() for each in (1, 2))
    assert one == two
    assert {row["document"] for row in one} == {0, 1, 2, 3, 4}


def test_end_token_is_not_scored() -> None:
    assert END not in targets(rows_of(*TEXTS, layout=Layout("whole", 8, 2)))


def test_whole_rows_stand_from_long_to_short() -> None:
    rows = rows_of("a", LONG, "the cat", layout=Layout("whole", 64, 2))
    lengths = [len(row["input_ids"]) for row in rows]
    assert lengths == sorted(lengths, reverse=True)


def test_padded_row_is_start_text_end() -> None:
    rows = rows_of("the cat", layout=Layout("padded", 64))
    assert rows == [{"input_ids": [END, *ids_of("the cat"), END], "num_context": 1}]


@given(texts=st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=4))
def test_padded_rows_train_on_every_token_and_the_end_once(texts: list[str]) -> None:
    rows = rows_of(*texts, layout=Layout("padded", 5))
    assert targets(rows) == [id_ for text in texts for id_ in [*ids_of(text), END]]


def test_packed_document_ends_with_the_end_token() -> None:
    rows = rows_of("the cat", layout=Layout("packed", 4))
    assert rows == [{"input_ids": [*ids_of("the cat"), END]}]


def test_packed_document_begins_with_the_bos_that_the_tokenizer_adds_itself() -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", bos)]
    )
    rows = rows_of("the cat", layout=Layout("packed", 4), tokenizer=tokenizer)
    assert rows == [{"input_ids": [bos, *ids_of("the cat"), END]}]


@pytest.mark.slow
def test_several_processes_give_the_same_rows(tmp_path: Path) -> None:
    texts = documents(*TEXTS, LONG)
    layout = Layout("whole", 8, 2)
    alone = tokenise(texts, TOKENIZER, layout)
    shared = tokenise(texts, TOKENIZER, layout, num_proc=2, scratch=tmp_path)
    assert shared.to_list() == alone.to_list()


def test_start_token_is_the_end_token_where_there_is_no_bos() -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=make_tokenizer().backend_tokenizer, eos_token="<|end|>"
    )
    assert frame_of(tokenizer) == Frame(start=END, end=END, starts_documents=False, pad=END)


def test_pad_token_fills_where_there_is_one() -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    assert frame_of(tokenizer).pad == tokenizer.pad_token_id != END


def test_tokenizer_without_end_token_is_refused() -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=make_tokenizer().backend_tokenizer)
    with pytest.raises(ValueError, match="has no end token"):
        frame_of(tokenizer)


@pytest.mark.parametrize(("block_size", "overlap"), [(1, 1), (8, 0), (8, 8)])
def test_layout_in_which_windows_cannot_advance_is_refused(block_size: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="overlap from 1 to block_size - 1"):
        Layout("whole", block_size, overlap)


@pytest.mark.assets
@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("gpt2", Frame(start=50256, end=50256, starts_documents=False, pad=50256)),
        ("storyllamas-4096", Frame(start=1, end=2, starts_documents=True, pad=3)),
    ],
)
def test_frame_of_a_real_tokenizer(assets: Path, name: str, frame: Frame) -> None:
    assert frame_of(load_tokenizer(assets / "tokenizers" / name)) == frame
