from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_vocab.initializers.spaces.tokens import (
    as_base,
    cut,
    is_ordinary,
    places_by_id,
    read_texts,
    words_of,
)
from tests.initializers.contexts import make_context, pico_tokenizer

TEXTS = ["the catdog sat", "", "cats and a catdog", "<|tool|>"]


def test_special_tokens_of_the_base_are_not_ordinary() -> None:
    context = make_context(torch.ones(300, 2))
    assert context.base_ids[~is_ordinary(context)].tolist() == [0]


def test_texts_as_the_base_sees_them_are_those_of_the_base_tokenizer() -> None:
    context = make_context(torch.ones(300, 2))
    texts = cut(context.tokenizer, TEXTS)
    base, ends = as_base(context, texts)
    expected = [pico_tokenizer().encode(text) for text in TEXTS]
    assert base.ids.tolist() == [id for ids in expected for id in ids]
    assert base.lengths.tolist() == [len(ids) for ids in expected]
    pieces = {token.id: token.pieces for token in context.expansion.tokens}
    sizes = [len(pieces.get(id, (id,))) for id in texts.ids.tolist()]
    assert ends.tolist() == (np.cumsum(sizes) - 1).tolist()


def test_places_are_those_of_the_new_tokens_and_then_the_bases() -> None:
    context = make_context(torch.ones(310, 2))
    places = places_by_id(context)
    assert [places[id] for id in context.expansion.new_ids] == [0, 1, 2]
    assert [places[id] for id in context.base_ids.tolist()] == list(range(3, 303))


def test_a_surface_without_whole_text_is_no_word() -> None:
    assert words_of([" cat", "\ufffd", "  ", "ca\ufffd", "ไทย\n"]) == [
        *("cat", None, None, None, "ไทย")
    ]


def test_lines_and_fields_of_files_are_documents(tmp_path: Path) -> None:
    lines, rows, packed = (tmp_path / name for name in ("a.txt", "b.jsonl", "c.jsonl.gz"))
    lines.write_text("one\ntwo\n", encoding="utf-8")
    rows.write_text('{"body": "three"}\n', encoding="utf-8")
    packed.write_bytes(gzip.compress(json.dumps({"body": "ไทย"}).encode()))
    assert list(read_texts([str(lines), str(rows), str(packed)], "body")) == [
        *("one", "two", "three", "ไทย")
    ]


@pytest.mark.parametrize("line", ["{", '{"text": 3}', '{"other": "a"}', "[1]"])
def test_a_line_without_text_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "fine"}}\n{line}\n')
    with pytest.raises(ValueError, match=r"line 2 of .*a\.jsonl"):
        list(read_texts([str(path)]))


def test_files_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(FileNotFoundError, match=r"no text file 'gone\.txt'"):
        list(read_texts(["gone.txt"]))
    with pytest.raises(ValueError, match=r"got 'text\.pdf'"):
        list(read_texts(["text.pdf"]))
    with pytest.raises(ValueError, match="at least one text file"):
        list(read_texts([]))
