from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lightning_vocab.commands import find_command
from lightning_vocab.commands.frame import run_command
from lightning_vocab.commands.slots import slots
from tests.conftest import make_model, make_tokenizer
from tests.expanded import with_slots


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """306 rows: padded rows 304 (zero) and 305 (a copy of 301), reserved tokens 300 to 302."""
    folder = tmp_path / "base"
    model = make_model(306, tied=request.param)
    with torch.no_grad():
        for rows in (model.model.embed_tokens.weight, model.lm_head.weight):
            rows[304] = 0
            rows[305] = rows[301]
    model.save_pretrained(folder)
    with_slots(make_tokenizer(), 3).save_pretrained(folder)
    return folder


def run(*args: str) -> int:
    return run_command(find_command("slots"), args, "slots")


def test_slots_are_listed_with_what_their_rows_say(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(str(base), "--json", str(tmp_path / "slots.json")) == 0
    said = capsys.readouterr().out
    assert "5 slots: 304 tokens in 306 rows" in said
    assert "304-305" in said
    assert "300-302" in said
    found = json.loads((tmp_path / "slots.json").read_text())
    assert (found["num_tokens"], found["num_rows"]) == (304, 306)
    assert [slot["id"] for slot in found["slots"]] == [304, 305, 300, 301, 302]
    assert [slot["token"] for slot in found["slots"][1:3]] == [None, "<|reserved_0|>"]
    verdicts = {slot["id"]: slot["looks_untrained"] for slot in found["slots"]}
    assert verdicts == {304: True, 305: True, 300: False, 301: True, 302: False}
    zero, copy = found["slots"][:2]
    assert (zero["embedding"]["norm"], zero["embedding"]["nonzero"]) == (0, 0)
    assert copy["embedding"]["duplicates"] == 1
    assert ("head" in zero) == ("head" in found["used_rows"])


def test_the_table_is_whole_in_a_window_of_80_characters(
    base: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    slots(str(base))
    said = capsys.readouterr().out
    assert "0.0…" not in said
    assert "…" not in said
    words = " ".join(said.split())
    for whole in ("cosine", "to slots", "trained", "304 (padded)", "median of 5 slots", "3/5"):
        assert whole in words


def test_patterns_choose_the_slots(base: Path, tmp_path: Path) -> None:
    place = str(tmp_path / "slots.json")
    assert run(str(base), "--pattern", "padded", "<|reserved_1|>", "--json", place) == 0
    found = json.loads(Path(place).read_text())
    assert [slot["id"] for slot in found["slots"]] == [304, 305, 301]


def test_a_tokenizer_alone_is_listed_without_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_slots(make_tokenizer(), 3).save_pretrained(tmp_path / "base")
    slots(str(tmp_path / "base"), json=str(tmp_path / "slots.json"))
    said = " ".join(capsys.readouterr().out.split())
    assert "Padded rows are not among them" in said
    assert "a tokenizer alone" in said
    found = json.loads((tmp_path / "slots.json").read_text())
    assert "tokenizer alone" in found["statistics_missing"]
    assert found["num_rows"] is None
    assert found["slots"][0] == {
        "id": 300,
        "token": "<|reserved_0|>",
        "pattern": "<|reserved_*|>",
        "looks_untrained": None,
    }


def test_a_base_without_slots_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    slots("demo")
    assert capsys.readouterr().out.startswith("0 slots: 2048 tokens")


def test_spellings_are_not_read_as_markup(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["[unused1]", "[unused2]"], special_tokens=True)
    make_model(302).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    slots(str(tmp_path))
    assert "[unused*]" in capsys.readouterr().out


def test_a_wrong_base_a_wrong_pattern_and_a_wrong_place_are_said_in_a_line(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(str(tmp_path / "nowhere")) == 2
    assert run(str(base), "--pattern", "<unused*>") == 2
    assert run(str(base), "--json", str(tmp_path / "no folder" / "slots.json")) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "finds no slot" in lines[1]


def test_a_config_that_counts_other_rows_than_the_file_is_refused(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "vocab_size": 320}))
    with pytest.raises(ValueError, match="says 320 rows, its embedding has 306"):
        slots(str(base))
