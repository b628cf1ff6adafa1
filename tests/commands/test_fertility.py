"""`lightning-vocab fertility` from its arguments to its JSON file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lightning_vocab.cli import main
from lightning_vocab.vocabulary import load_tokenizer
from tests.conftest import NEW_TEXTS, TEXTS, make_tokenizer


@pytest.fixture(autouse=True)
def _no_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("COLUMNS", "120")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    rows = [{"en": en, "th": en + " " + en, "text": en} for en in (*TEXTS, *NEW_TEXTS)]
    for name, kept in (("rows", rows), ("fewer", rows[:-1])):
        lines = "".join(json.dumps(row) + "\n" for row in kept)
        (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    lines = "".join(
        json.dumps(row) + "\n" for row in [*rows[1:], {"en": " ", "th": "", "text": ""}]
    )
    (tmp_path / "blank.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "thai.txt").write_text("ไปบ้าน\nบ้านไป\n", encoding="utf-8")
    make_tokenizer(280).save_pretrained(tmp_path / "small")
    return tmp_path


def measured(place: Path, *args: str) -> dict[str, Any]:
    main(["fertility", *args, "--json", str(place / "out.json")])
    found: dict[str, Any] = json.loads((place / "out.json").read_text(encoding="utf-8"))
    return found


def test_figures_of_each_text_and_of_all_for_each_tokenizer(
    place: Path, tied_folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measured(
        place,
        *(str(place / "small"), tied_folder),
        *("--text", f"a={place}/rows.jsonl", f"{place}/thai.txt", "--context_length", "100"),
    )
    names = list(found["tokenizers"])
    assert names == ["small", Path(tied_folder).name]
    assert list(found["texts"]) == ["a", "thai"]
    expected = sum(
        len(load_tokenizer(tied_folder)(text).input_ids) for text in (*TEXTS, *NEW_TEXTS)
    )
    figures = found["texts"]["a"]["tokenizers"][names[1]]
    assert figures["num_tokens"] == expected
    assert figures["effective_context_bytes"] == 100 / figures["tokens_per_byte"]
    assert found["texts"]["thai"]["tokenizers"][names[1]]["tokens_per_word"] is None
    assert found["total"]["size"]["num_documents"] == 8
    said = capsys.readouterr().out
    for words in ("a: 6 documents", "thai: 2 documents", "all texts: 8", "Rényi", "95 % interval"):
        assert words in said
    # Not for Thai, and so not for all texts: the words of one text are not those of both.
    assert said.count("tokens per word") == said.count("context in words") == 1
    assert said.count("words in one token") == 1
    total = found["total"]["tokenizers"][names[1]]
    assert (total["tokens_per_word"], total["effective_context_words"]) == (None, None)
    assert found["total"]["size"]["num_words"] is None


def test_parity_over_aligned_texts(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = f"{place}/rows.jsonl"
    found = measured(place, str(place / "small"), "--aligned", f"th={rows}::th", f"en={rows}::en")[
        "parity"
    ]
    assert found["reference"] == "en"
    ratio = found["texts"]["th"]["small"]["tokens_ratio"]
    assert 1.9 < ratio < 2.3
    low, high = found["texts"]["th"]["small"]["interval"]
    assert low <= ratio <= high
    assert "tokens over tokens of en" in capsys.readouterr().out


def test_use_and_frequency_of_the_new_tokens_of_an_expansion(
    place: Path, expansion_folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measured(
        place,
        *("demo", expansion_folder, "--text", f"{place}/rows.jsonl"),
        *("--training_tokens", "1000", "--floor", "30"),
    )
    tokenizers = found["total"]["tokenizers"]
    assert "new_tokens" not in tokenizers["demo"]
    use = tokenizers["expansion"]["new_tokens"]
    assert use["num_new_tokens"] == len(use["counts"]) == 12
    run = found["token_frequency"]["expansion"]
    assert run["num_text_tokens"] == tokenizers["expansion"]["num_tokens"]
    below = {row["id"] for row in run["rows_below_floor"]}
    share = 1000 / run["num_text_tokens"]
    assert below == {row["id"] for row in use["counts"] if row["count"] * share < 30}
    said = capsys.readouterr().out
    assert "use of the new tokens" in said
    assert f"{len(below)} of 12 new rows" in said


@pytest.mark.parametrize(
    "option",
    [
        ("--word_pattern", r"\p{Thai}{2}"),
        ("--word_splitter", "tests.commands.test_fertility:halves"),
    ],
)
def test_words_of_a_script_without_blanks_by_pattern_or_function(
    option: tuple[str, str], place: Path
) -> None:
    found = measured(place, str(place / "small"), "--text", f"{place}/thai.txt", *option)
    assert (
        found["total"]["size"]["num_words"]
        == {"--word_pattern": 6, "--word_splitter": 4}[option[0]]
    )


def halves(text: str) -> list[str]:
    return [text[:3], text[3:]]


def test_context_length_is_the_smallest_that_the_folder_names(place: Path) -> None:
    config = place / "small" / "config.json"
    config.write_text('{"max_position_embeddings": 64}', encoding="utf-8")
    found = measured(place, str(place / "small"), "--text", f"{place}/thai.txt")
    assert found["tokenizers"]["small"]["context_length"] == 64
    config.unlink()
    found = measured(place, str(place / "small"), "--text", f"{place}/thai.txt")
    assert found["tokenizers"]["small"]["context_length"] is None
    assert found["total"]["tokenizers"]["small"]["effective_context_bytes"] is None


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "give --text or --aligned"),
        (["--text", "{0}/rows.jsonl", "--json", "{0}/no/where.json"], "does not exist"),
        (["--text", "{0}/rows.jsonl::de"], "Expected the field 'de' on line 1"),
        (["--text", "{0}/none.jsonl"], "none.jsonl"),
        (["--aligned", "{0}/rows.jsonl::en"], "at least two --aligned"),
        (["--aligned", "a={0}/rows.jsonl", "b={0}/fewer.jsonl"], "a has 6, b has 5"),
        (["--aligned", "a={0}/rows.jsonl", "b={0}/blank.jsonl"], "'b' has 1 blank rows among 6"),
        (
            ["--aligned", "a={0}/rows.jsonl", "b={0}/rows.jsonl", "--text", "a={0}/rows.jsonl"],
            "'a'",
        ),
        (["--text", "{0}/rows.jsonl", "--context_length", "0"], "--context_length of at least 1"),
        (["--text", "{0}/rows.jsonl", "--floor=-1"], "--floor of at least 0"),
        (["--text", "{0}/rows.jsonl", "--training_tokens", "9"], "expansion folder"),
        (["--text", "{0}/rows.jsonl", "--word_pattern", "("], "is no expression"),
        (["--text", "{0}/rows.jsonl", "--word_splitter", "nowhere:cut"], "module:function"),
        (["--text", "{0}/rows.jsonl", "--word_pattern", "a", "--word_splitter", "b:c"], "got both"),
    ],
)
def test_what_the_user_gave_wrong_is_said_in_a_line(
    args: list[str], said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["fertility", str(place / "small"), *(arg.format(place) for arg in args)])
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_half_a_surrogate_pair_is_named_by_its_line(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "half.jsonl").write_text('{"text": "a"}\n{"text": "\\ud800"}\n', encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        main(["fertility", str(place / "small"), "--text", f"{place}/half.jsonl"])
    assert "line 2 of" in capsys.readouterr().err


def test_a_tokenizer_that_loses_text_is_named_under_the_table(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "the": 1}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    lossy = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    lossy.save_pretrained(place / "lossy")
    paths = [str(place / "small"), str(place / "lossy")]
    measured(place, *paths, "--text", f"{place}/rows.jsonl")
    assert "lossy: unknown text is lost" in capsys.readouterr().out


def test_tokenizers_of_one_folder_name_are_told_apart(place: Path) -> None:
    make_tokenizer(290).save_pretrained(place / "other" / "small")
    paths = [str(place / "small"), str(place / "other" / "small")]
    found = measured(place, *paths, "--text", f"{place}/rows.jsonl")
    assert list(found["tokenizers"]) == paths
    with pytest.raises(SystemExit, match="2"):
        main(["fertility", paths[0], paths[0], "--text", f"{place}/rows.jsonl"])
