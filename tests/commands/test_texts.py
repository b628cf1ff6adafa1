from __future__ import annotations

import pytest

from lightning_vocab.commands.texts import parse_texts
from lightning_vocab.data.sources import TextSource


def test_a_text_is_a_path_with_a_name_and_a_field() -> None:
    found = parse_texts(["a/posts.jsonl.gz", "th=n.jsonl::th", "n.jsonl::en", "demo:english"])
    assert found == {
        "posts": TextSource("a/posts.jsonl.gz"),
        "th": TextSource("n.jsonl", text_field="th"),
        "n": TextSource("n.jsonl", text_field="en"),
        "english": TextSource("demo:english"),
    }


@pytest.mark.parametrize("word", ["", "=a.txt", "name=", "a.txt::", "::x"])
def test_a_text_without_a_part_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="name=path::field"):
        parse_texts([word])


def test_two_texts_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="named 'a'"):
        parse_texts(["x/a.txt", "y/a.txt"])
