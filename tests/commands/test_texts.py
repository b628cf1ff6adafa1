from __future__ import annotations

from pathlib import Path

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


def test_a_path_may_hold_an_equals_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lang=th.txt").write_text("a", encoding="utf-8")
    words = ["bad/lang=th/t.txt::x", "lang=th.txt", "en=parts/lang=en/e.txt"]
    assert parse_texts(words) == {
        "t": TextSource("bad/lang=th/t.txt", text_field="x"),
        "lang=th": TextSource("lang=th.txt"),
        "en": TextSource("parts/lang=en/e.txt"),
    }


def test_two_texts_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="named 'a'"):
        parse_texts(["x/a.txt", "y/a.txt"])
