from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lightning_vocab.cli import main
from lightning_vocab.vocabulary import load_expansion
from tests.conftest import NEW_TEXTS


def write_text(folder: Path) -> str:
    lines = [json.dumps({"body": text}) for text in NEW_TEXTS * 5]
    (folder / "new.jsonl").write_text("\n".join(lines))
    return f"new={folder / 'new.jsonl'}::body"


def test_a_tokenizer_grows_from_the_command_line(
    tied_folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    learn = ["--extender", "ContinuedBPE", "--extender.num_new_tokens", "7"]
    out = str(tmp_path / "out")
    text = ["--text", write_text(tmp_path)]
    main(["grow", tied_folder, out, *learn, *text, "--json", str(report)])
    grown = load_expansion(out)
    assert len(grown.expansion.tokens) == 7
    assert "7 new tokens, 300 -> 307 rows" in capsys.readouterr().out
    told: Any = json.loads(report.read_text())
    assert [token["id"] for token in told["tokens"]] == list(range(300, 307))
    assert told["extender"]["class"] == "lightning_vocab.vocabulary.ContinuedBPE"
    with pytest.raises(SystemExit, match="2"):
        main(["grow", tied_folder, out, *learn, *text])
    main(["grow", tied_folder, out, *learn, *text, "--overwrite", "true"])


def test_extenders_that_do_not_learn_need_no_text(tied_folder: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    main(["grow", tied_folder, out, "--extender", "AddTokens", "--extender.tokens", '["<|a|>"]'])
    assert [token.surface for token in load_expansion(out).expansion.tokens] == ["<|a|>"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--extender CLASS"),
        (["--extender", "ContinuedBPE", "--extender.num_new_tokens", "7"], "no text to learn"),
    ],
)
def test_what_is_missing_is_said(
    words: list[str],
    message: str,
    tied_folder: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["grow", tied_folder, str(tmp_path / "out"), *words])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
