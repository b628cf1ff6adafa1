"""Text that growth must leave in the tokens that it had."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from lightning_vocab.vocabulary import ContinuedBPE, ExpandedTokenizer, load_tokenizer
from lightning_vocab.vocabulary.backend_state import read_state
from lightning_vocab.vocabulary.bpe.protected import check_unchanged
from lightning_vocab.vocabulary.bpe.protected_text import ProtectedReading, check_protected
from lightning_vocab.vocabulary.limits import TooFewTokensError
from tests.conftest import make_tokenizer
from tests.vocabulary.bpe.test_continued_bpe import edited
from tests.vocabulary.conftest import make_fallback_tokenizer, texts_of

MAKERS: list[Callable[[], PreTrainedTokenizerFast]] = [make_tokenizer, make_fallback_tokenizer]
PROTECTED = st.text("abcก😀 1\n", min_size=1, max_size=25).filter(lambda text: text.strip() != "")


def surfaces(grown: ExpandedTokenizer) -> list[str]:
    return [token.surface for token in grown.expansion.tokens]


@pytest.mark.slow
@pytest.mark.parametrize("make", MAKERS)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    texts=st.lists(st.text("abcก😀 1", min_size=8, max_size=60), min_size=2, max_size=5),
    protected=st.lists(PROTECTED, min_size=1, max_size=4),
    number=st.integers(1, 8),
)
def test_protected_texts_are_cut_as_by_the_base(
    make: Callable[[], PreTrainedTokenizerFast],
    texts: list[str],
    protected: list[str],
    number: int,
) -> None:
    base = make()
    try:
        grown = ContinuedBPE(number, min_frequency=1, protected=protected).extend(base, texts)
    except TooFewTokensError:
        reject()
    assert len(grown.expansion.tokens) == number
    for text in protected:
        assert grown.tokenizer.encode(text) == base.encode(text)
    for text in texts:
        assert len(grown.tokenizer.encode(text)) <= len(base.encode(text))


def test_nothing_is_left_out_but_what_would_join_protected_neighbours(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    # x and y are no neighbours in "x y yx"; v and w are, and all else is built on them.
    texts = ["xy"] * 9 + ["vwk"] * 5 + ["qz"] * 2
    grown = ContinuedBPE(2, protected=["x y yx", "vw"]).extend(tokenizer, texts)
    assert surfaces(grown) == ["xy", "qz"]
    assert grown.expansion.extender["report"] == {
        "num_left_out_by_protected": 1,
        "left_out_by_protected": ["vw"],
    }


def test_the_end_of_one_text_is_no_neighbour_of_the_next(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    grown = ContinuedBPE(1, protected=["qx", "yq"]).extend(tokenizer, ["xy"] * 3)
    assert surfaces(grown) == ["xy"]


def test_longer_tokens_may_come_where_protected_text_does_not_start_them(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    # y and z stand side by side in both; (x, y) comes first in "xyz", and never in "qyz".
    grown = ContinuedBPE(2, protected=["qyz"]).extend(tokenizer, ["xyz"] * 5 + ["xy"] * 2)
    assert surfaces(grown) == ["xy", "xyz"]
    assert grown.tokenizer.tokenize("qyz xyz") == ["q", "y", "z", "Ġ", "xyz"]


def test_protected_characters_stay_in_byte_tokens(
    fallback_tokenizer: PreTrainedTokenizerFast,
) -> None:
    grown = ContinuedBPE(1, protected=["ก"]).extend(fallback_tokenizer, ["กกก", "ขข"])
    assert surfaces(grown) == ["ข"]
    assert grown.expansion.extender["report"]["left_out_by_protected"] == ["ก"]
    assert grown.tokenizer.encode("ก") == fallback_tokenizer.encode("ก")


def test_a_whole_protected_word_stays_where_merges_are_ignored() -> None:
    base = edited(make_tokenizer(), ignore_merges=True)
    grown = ContinuedBPE(1, protected=["xyz"]).extend(base, ["xyz"] * 5 + ["vw"] * 2)
    assert surfaces(grown) == ["vw"]
    assert grown.tokenizer.tokenize("xyz") == ["x", "y", "z"]


def test_added_tokens_in_protected_text_part_their_neighbours(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenizer.add_tokens([AddedToken("<|tool|>", special=True)])
    grown = ContinuedBPE(1, protected=["x<|tool|>y"]).extend(tokenizer, ["xy"] * 3)
    assert surfaces(grown) == ["xy"]
    assert grown.tokenizer.encode("x<|tool|>y") == tokenizer.encode("x<|tool|>y")


def test_a_grown_tokenizer_that_cuts_protected_text_anew_is_refused(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    grown = ContinuedBPE(1).extend(tokenizer, ["xy"] * 3).tokenizer
    expected = r"'qxyv' token 1 .* were \['x', 'y', 'v'\] and became \['xy', 'v'\]"
    with pytest.raises(ValueError, match=expected):
        check_unchanged(read_state(tokenizer), read_state(grown), ["xv", "qxyv"])


def test_truncation_left_on_by_a_call_does_not_shorten_what_is_protected(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenizer("abc", truncation=True, max_length=2)
    grown = ContinuedBPE(1, protected=["k q vw"]).extend(tokenizer, ["vw"] * 5 + ["xy"] * 2)
    assert surfaces(grown) == ["xy"]


def test_a_file_protects_what_its_text_does(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    text = "vw\r\nก = 1\n"
    file = tmp_path / "code.txt"
    file.write_bytes(text.encode())
    extenders = [
        ContinuedBPE(1, protected=[text]),
        ContinuedBPE(1, protected_files=[str(file)]),
    ]
    first, second = (each.extend(tokenizer, ["vw"] * 5 + ["xy"] * 2) for each in extenders)
    assert surfaces(first) == ["xy"]
    assert first.expansion == second.expansion


def test_the_manifest_holds_a_checksum_instead_of_the_text(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    extender = ContinuedBPE(1, protected=["kq", "ก1"])
    expansion = extender.extend(tokenizer, ["xy"] * 3).expansion
    data = b"\0\0\0\0\0\0\0\2kq" + b"\0\0\0\0\0\0\0\4" + "ก1".encode()
    assert expansion.extender["args"]["protected"] == {
        "num_documents": 2,
        "num_characters": 4,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    assert ContinuedBPE(1, protected=["kq", "ก1"]).has_built(expansion)
    assert not ContinuedBPE(1, protected=["kqก1"]).has_built(expansion)
    assert not ContinuedBPE(1).has_built(expansion)


def test_a_changed_file_is_another_setting(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    file = tmp_path / "code.txt"
    file.write_text("kq", encoding="utf-8")
    extender = ContinuedBPE(1, protected_files=[str(file)])
    expansion = extender.extend(tokenizer, ["xy"] * 3).expansion
    assert ContinuedBPE(1, protected_files=[str(file)]).has_built(expansion)
    file.write_text("kv", encoding="utf-8")
    assert not ContinuedBPE(1, protected_files=[str(file)]).has_built(expansion)


def test_what_was_read_is_what_the_manifest_names(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    file = tmp_path / "code.txt"
    extender = ContinuedBPE(1, protected_files=[str(file)])
    found = []
    for text in ("kq", "kvw"):
        file.write_text(text, encoding="utf-8")
        found.append(extender.extend(tokenizer, ["xy"] * 3).expansion)
        assert extender.has_built(found[-1])
        as_text = ContinuedBPE(1, protected=[text]).extend(tokenizer, ["xy"] * 3)
        assert found[-1] == as_text.expansion
    assert not extender.has_built(found[0])


def test_a_file_that_changes_during_training_is_an_error(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    file = tmp_path / "code.txt"
    file.write_text("kq", encoding="utf-8")

    def texts() -> Iterator[str]:
        file.write_text("kv", encoding="utf-8")
        yield "xy xy xy"

    with pytest.raises(ValueError, match="changed while merges were learned"):
        ContinuedBPE(1, protected_files=[str(file)]).extend(tokenizer, texts())


def test_a_file_that_grows_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "code.txt"
    file.write_text("kq\n" * 100_000, encoding="utf-8")
    pieces = ProtectedReading(check_protected(None, [str(file)])).pieces()
    next(pieces)
    file.write_text("kq\n" * 100_001, encoding="utf-8")
    with pytest.raises(ValueError, match=r"code\.txt' changed while it was read"):
        list(pieces)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_large_file_is_read_in_pieces_behind_line_ends_and_is_still_one_text(
    tmp_path: Path, end: str
) -> None:
    lines = [f"line {number} ก{end}" for number in range(50_000)]
    text = "".join(lines)
    file = tmp_path / "large.txt"
    file.write_bytes(text.encode())
    reading = ProtectedReading(check_protected(None, [str(file)]))
    pieces = list(reading.pieces())
    longest = max(map(len, lines))
    assert "".join(pieces) == text
    assert all(piece.endswith(end) for piece in pieces)
    assert [250_000 <= len(piece) <= 250_000 + longest for piece in pieces[:-1]] == [True] * 2
    assert reading.identity() == check_protected([text], None).identity()


@pytest.mark.slow
def test_every_piece_of_a_large_file_is_protected(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    text = "k\n" * 130_000 + "vw\n"  # what is left out stands in the second piece
    (tmp_path / "large.txt").write_text(text, encoding="utf-8")
    extender = ContinuedBPE(1, protected_files=[str(tmp_path / "large.txt")])
    grown = extender.extend(tokenizer, ["vw"] * 5 + ["xy"] * 2)
    assert surfaces(grown) == ["xy"]


@pytest.mark.parametrize("name", ["protected", "protected_files"])
@pytest.mark.parametrize(
    ("value", "error", "reason"),
    [
        ("x", TypeError, "Expected a list of strings in {}, got 'x'"),
        ([], ValueError, "at least one item in {}, got an empty list"),
        (["x", 7], TypeError, "Item 1 of {} must be a string, got 7"),
        (["x", ""], ValueError, "1 of {} is empty"),
        (["\n "], ValueError, "0 of {} is blank"),
        (["a\0"], ValueError, "0 of {} holds NUL"),
        (["x", "ก\ud800"], ValueError, "1 of {} holds a lone surrogate"),
    ],
)
def test_what_is_no_text_is_refused_by_name(
    name: str, value: Any, error: type[Exception], reason: str
) -> None:
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(error, match=reason.format(name)):
        ContinuedBPE(1, **arguments)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xfe", "is not UTF-8"),
        (b"kq\n" * 100_000 + b"\xe0\xb8", r"is not UTF-8: unexpected end of data"),
        (b"a\0", "holds NUL"),
        (b" \n", "is blank"),
        (b"", "is blank"),
    ],
)
def test_files_without_text_are_refused_before_any_work(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, content: bytes, reason: str
) -> None:
    file = tmp_path / "bad.txt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"Protected file '.*bad\.txt' {reason}"):
        ContinuedBPE(1, protected_files=[str(file)]).extend(tokenizer, [])


def test_a_missing_file_is_named_before_any_work(tokenizer: PreTrainedTokenizerFast) -> None:
    extender = ContinuedBPE(1, protected_files=["no/such/file.txt"])
    with pytest.raises(FileNotFoundError, match=r"protected_files names 'no/such/file\.txt'"):
        extender.extend(tokenizer, [])


@pytest.mark.slow
@pytest.mark.assets
@pytest.mark.parametrize("name", ["gpt2", "llama2", "qwen2.5", "llama3"])
def test_english_and_code_stay_as_they_were_when_another_language_is_learned(
    name: str, assets: Path
) -> None:
    base = load_tokenizer(assets / "tokenizers" / name)
    lines = (assets / "text/ntrex_en_th_vi.jsonl").read_text(encoding="utf-8").splitlines()
    code = Path(__file__).parents[3].glob("lightning_vocab/vocabulary/*.py")
    protected = [
        *(json.loads(line)["en"] for line in lines[:800]),
        *(path.read_text(encoding="utf-8") for path in code),
    ]
    vietnamese = texts_of(assets / "text/vi_wikipedia.jsonl", 40)
    # Learned from as well, so that there is much to leave out.
    grown = ContinuedBPE(300, protected=protected).extend(base, [*vietnamese, *protected])
    before, after = (
        each([*protected, *vietnamese], add_special_tokens=False).input_ids
        for each in (base, grown.tokenizer)
    )
    assert len(grown.expansion.tokens) == 300
    assert grown.expansion.extender["report"]["num_left_out_by_protected"] > 10
    assert after[: len(protected)] == before[: len(protected)]
    assert sum(map(len, after)) < sum(map(len, before))
