from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from transformers import PreTrainedTokenizerFast

from lightning_vocab.cli import main
from lightning_vocab.vocabulary import ContinuedBPE, load_tokenizer
from tests.conftest import NEW_TEXTS, case

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a text of which the first nine tenths differ from the last."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lightning-vocab"])  # main(args) is called, not the shell
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    lines = [json.dumps({"text": f"{text} {k % 7}"}) for k in range(20) for text in NEW_TEXTS]
    (tmp_path / "new.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def plan(base: str, **options: Any) -> None:
    given = {"floor": 1, "batch_size": 2, "block_size": 16, **options}
    main(["plan", base, "--text", "new.jsonl", *(f"--{k}={v}" for k, v in given.items())])


def read(path: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return values


def growth_texts() -> list[str]:
    lines = Path("new.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def test_a_plan_is_a_table_reasons_a_picture_and_a_recipe(
    tied_folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(tied_folder, out="out", json="all.json")
    printed = capsys.readouterr().out
    assert "What new tokens gain, on held-out text" in printed
    assert "What they cost (tied, width 32; bf16)" in printed
    values = read("out/plan.json")
    assert f"Expand by {values['advice']['num_new_tokens']} tokens" in printed
    assert values == read("all.json")
    assert Path("out/plan.png").read_bytes()[:8] == PNG
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "plan.json",
        "plan.png",
        "recipe.yaml",
    ]


def test_the_planned_gain_is_that_of_a_growth_by_as_many_tokens(tied_folder: str) -> None:
    plan(tied_folder, json="all.json")
    texts, tokenizer = growth_texts(), load_tokenizer(tied_folder)
    for point in read("all.json")["table"][1:]:
        size = point["num_new_tokens"]
        grown = ContinuedBPE(size).extend(tokenizer, texts[:54]).tokenizer
        num_tokens = sum(len(grown(text).input_ids) for text in texts[54:])
        num_bytes = sum(map(len, texts[54:]))
        assert point["tokens_per_byte"] == pytest.approx(num_tokens / num_bytes)


@pytest.mark.slow
def test_the_recipe_trains_and_its_report_holds_the_planned_gain(tied_folder: str) -> None:
    plan(tied_folder, out="out")
    options: dict[str, Any] = {
        "trainer.accelerator": "cpu",
        "trainer.max_steps": 2,
        "trainer.enable_progress_bar": False,
        "trainer.enable_model_summary": False,
        "trainer.logger": False,
        "trainer.val_check_interval": 2,
    }
    main(["fit", "--config", "out/recipe.yaml", *(f"--{k}={v}" for k, v in options.items())])
    advice = read("out/plan.json")["advice"]
    rows = {row["name"]: row for row in json.loads(Path("out_run/report.json").read_text())}
    assert -rows["tokens per byte, new"]["change"] == pytest.approx(advice["gain"])
    assert len(load_tokenizer("out_run/export")) == 300 + advice["num_new_tokens"]


@pytest.mark.slow
def test_text_that_saves_too_little_gives_no_recipe_and_says_so(
    tied_folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(tied_folder, out="out", min_gain=0.99)
    printed = capsys.readouterr().out
    assert "Do not expand the vocabulary." in printed
    assert "No recipe: the advice is not to expand." in printed
    assert not Path("out/recipe.yaml").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "extender"),
    [
        case(
            {"fixed_size": "true", "base": "padded"},
            ("ContinuedBPE", "into_slots", True),
            quick=True,
        ),
        case(
            {"tokens_file": "tokens.txt"},
            ("AddTokens", "tokens", ["<|a|>", "<|b|>"]),
            quick=False,
        ),
        case(
            {"tokens_file": "tokens.txt", "fixed_size": "true", "base": "padded"},
            ("ReuseSlots", "tokens", ["<|a|>", "<|b|>"]),
            quick=True,
        ),
    ],
)
def test_every_method_has_a_recipe_that_the_command_line_takes(
    tied_folder: str,
    options: dict[str, Any],
    extender: tuple[str, str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("tokens.txt").write_text("<|a|>\n\n<|b|>\n", encoding="utf-8")
    base = with_padded_rows(tied_folder) if options.pop("base", None) else tied_folder
    plan(base, out="out", **options)
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--config", "out/recipe.yaml", "--print_config"])
    found = yaml.safe_load(capsys.readouterr().out)["data"]["extender"]
    name, argument, value = extender
    assert found["class_path"].endswith(f".{name}")
    assert found["init_args"][argument] == value


def with_padded_rows(base: str) -> str:
    """The base with a config of 20 rows more than tokens; a plan reads no weights."""
    load_tokenizer(base).save_pretrained("padded")
    config = read(f"{base}/config.json") | {"vocab_size": 320}
    Path("padded/config.json").write_text(json.dumps(config), encoding="utf-8")
    return "padded"


def test_costs_of_a_base_without_a_width_are_shown_once_the_user_gives_it(
    tokenizer: PreTrainedTokenizerFast, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer.save_pretrained("bare")
    plan("bare")
    assert "Costs are not shown: 'bare' has no config.json" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        plan("bare", hidden_size=4096)
    assert "give --tied true or --tied false" in capsys.readouterr().err
    plan("bare", hidden_size=4096, tied="false", num_backbone_parameters=7_000_000, json="a.json")
    (row, *_) = [row for row in read("a.json")["table"] if row["num_new_tokens"] > 0]
    assert row["cost"]["added_parameters"] == 2 * 4096 * row["num_new_tokens"]
    assert row["break_even_change"] < 0


@pytest.mark.slow
def test_an_older_plan_is_replaced_only_on_demand_and_other_folders_never(
    tied_folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(tied_folder, out="out")
    with pytest.raises(SystemExit, match="2"):
        plan(tied_folder, out="out")
    assert "set --overwrite true" in capsys.readouterr().err
    plan(tied_folder, out="out", overwrite="true")
    Path("out/thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        plan(tied_folder, out="out", overwrite="true")
    assert "never replaced" in capsys.readouterr().err


def test_what_cannot_be_planned_is_refused_before_any_work(
    tied_folder: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["plan", tied_folder])
    assert "Expected the text to plan for: --text" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        plan(tied_folder, block_size=4096)
    assert "block_size of at most 128" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        plan(tied_folder, max_new_tokens=0)
    assert "Expected --max_new_tokens of at least 1, got 0" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        plan(tied_folder, min_gain=7)
    assert "Expected min_gain between 0 and 1" in capsys.readouterr().err


def test_a_list_that_cannot_be_had_is_refused_before_anything_is_measured(
    tied_folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("lightning_vocab.commands.plan.measure")
    Path("tokens.txt").write_text("<|a|>\n<|b|>\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        plan(tied_folder, tokens_file="tokens.txt", fixed_size="true")
    assert "fits into the base's 0 slots" in capsys.readouterr().err
    Path("tokens.txt").write_text("a\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        plan(tied_folder, tokens_file="tokens.txt")
    assert "exist in the base already" in capsys.readouterr().err


def test_text_too_short_for_a_token_is_refused_in_the_words_of_the_command(
    tied_folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("new.jsonl").write_text('{"text": "q"}\n' * 20, encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        plan(tied_folder)
    said = capsys.readouterr().err
    assert "not a single new token with min_frequency=2: give more text" in said
    assert "num_new_tokens" not in said


@pytest.mark.slow
@pytest.mark.assets
def test_a_unigram_base_is_refused_with_the_reason(
    assets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        plan(str(assets / "tokenizers/t5-small"))
    assert "has a Unigram tokenizer: expected BPE" in capsys.readouterr().err


@pytest.mark.assets
@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "said"),
    [("tinyshakespeare.txt", "Do not expand"), ("th_wisesight.jsonl", "Expand by ")],
)
def test_qwen_needs_no_tokens_for_english_and_some_for_thai(
    text: str, said: str, assets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["plan", str(assets / "tokenizers/qwen2.5"), "--text", str(assets / "text" / text)])
    assert said in capsys.readouterr().out
