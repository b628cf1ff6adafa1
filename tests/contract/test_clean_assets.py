"""Real tokenizers and models are clean: what they do by design is a warning, never a failure."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_vocab.contract import (
    ContractInputs,
    Finding,
    check_contract,
    load_folder,
    load_manifest,
)
from lightning_vocab.initializers import SubwordMean
from lightning_vocab.rows import expand_model, export_model, find_split
from lightning_vocab.vocabulary import ContinuedBPE
from tests.conftest import NEW_TEXTS, case
from tests.contract.cases import edited

pytestmark = pytest.mark.assets

# What each of them is known for, by the name of the finding.
KNOWN = {
    "tokenizers/chinese-llama-sp20k": {"round trip"},  # no bytes to fall back on
    "tokenizers/gpt2": set(),
    "tokenizers/llama2": {"round trip"},  # a leading blank
    "tokenizers/llama3": {"effective context"},  # model_max_length above it
    "tokenizers/phi3-mini": {"chat template", "protocol tokens", "padding rows"},
    "tokenizers/qwen2.5": {"effective context", "round trip", "padding rows"},  # NFC
    "tokenizers/storyllamas-4096": {"round trip"},
    "tokenizers/t5-small": {"round trip", "cleaning", "padding rows"},
    "lm/english-4M": {"padding rows"},
    "lm/stories260K": set(),
}
QUICK = {"tokenizers/storyllamas-4096", "lm/english-4M", "lm/stories260K"}
FOLDERS = [case(name, quick=name in QUICK, id=Path(name).name) for name in KNOWN]
MODELS = [
    case("lm/stories260K", quick=True, id="stories260K"),
    case("lm/english-4M", quick=False, id="english-4M"),
]


def names_of(findings: list[Finding], status: str) -> set[str]:
    return {finding.name for finding in findings if finding.status == status}


@pytest.mark.parametrize("name", FOLDERS)
def test_nothing_fails_on_a_real_folder(name: str, assets: Path) -> None:
    checked = load_folder(assets / name, weights=True)
    findings = check_contract(checked, checked.tokenizer)
    assert [f for f in findings if f.status == "fail"] == []
    assert names_of(findings, "warn") == KNOWN[name]


@pytest.mark.parametrize("name", FOLDERS)
def test_nothing_fails_on_a_real_folder_beside_itself(name: str, assets: Path) -> None:
    checked = load_folder(assets / name, weights=True)
    findings = check_contract(checked, checked.tokenizer, base=assets / name)
    assert [f for f in findings if f.status == "fail"] == []
    assert {"old text", "old tokens", "special ids of the base"} <= names_of(findings, "pass")


@pytest.mark.parametrize("name", [name for name in FOLDERS if "t5" not in str(name)])
def test_nfkc_in_front_of_a_real_tokenizer_is_found(name: str, assets: Path) -> None:
    base = load_folder(assets / name)
    old = base.state.data["normalizer"]
    parts = [{"type": "NFKC"}, *([old] if old else [])]
    other = edited(
        base.tokenizer,
        lambda data: data.update(normalizer={"type": "Sequence", "normalizers": parts}),
        keep_vocab=True,
    )
    failed = {f.item for f in check_contract(None, other, base=base) if f.status == "fail"}
    assert failed == {10}


@pytest.mark.parametrize("name", MODELS)
def test_a_grown_and_trained_real_model_is_clean(name: str, assets: Path, tmp_path: Path) -> None:
    start = load_folder(assets / name, weights=True)
    assert start.model is not None
    expanded = ContinuedBPE(num_new_tokens=8).extend(
        start.tokenizer, NEW_TEXTS * 4, base_rows=start.config_rows
    )
    expand_model(start.model, expanded, SubwordMean(), pad_to_multiple_of=64)
    split = find_split(start.model)
    assert split is not None
    for part in split:
        part.rows.new.data *= 1.01
    folder = export_model(start.model, expanded, tmp_path / "grown")
    checked = load_folder(folder, weights=True)
    findings = check_contract(
        checked,
        checked.tokenizer,
        load_manifest(folder),
        assets / name,
        ContractInputs(old_rows="unchanged", divisible_by=[64], texts={"new": NEW_TEXTS}),
    )
    assert [f for f in findings if f.status == "fail"] == []
    assert {"old rows", "tie", "chunked loss", "padding rows"} <= names_of(findings, "pass")
