"""Clean models of several architectures and layouts of new rows, before training and exported."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_vocab.contract import (
    ContractInputs,
    ModelWithTokenizer,
    check_contract,
    load_folder,
    load_manifest,
)
from lightning_vocab.contract.stored import stored_matrices
from lightning_vocab.initializers import SubwordMean
from lightning_vocab.initializers.stored_tensors import SINGLE
from lightning_vocab.rows import expand_model, export_model, find_split
from tests.conftest import case, make_tokenizer
from tests.expanded import with_slots
from tests.rows.bases import KINDS, LAYOUTS, Kind, Layout, make_base, make_case

QUICK = {("llama-tied", "slot"), ("phi-bias", "padded"), ("gemma-scaled", "multiple")}
CASES = [
    case(kind, layout, quick=(kind, layout) in QUICK, id=f"{kind}-{layout}")
    for kind in KINDS
    for layout in LAYOUTS
]


@pytest.mark.parametrize(("kind", "layout"), CASES)
def test_nothing_fails_on_a_model_that_was_expanded_and_exported(
    kind: Kind, layout: Layout, tmp_path: Path
) -> None:
    rows, expanded, multiple = make_case(layout)
    base: Any = make_base(kind, rows)
    tokenizer = with_slots(make_tokenizer()) if layout == "slot" else make_tokenizer()
    base.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    model = copy.deepcopy(base)
    expand_model(model, expanded, SubwordMean(), pad_to_multiple_of=multiple)
    modes = [part.training for part in model.modules()]
    before = ModelWithTokenizer.of(base, tokenizer)
    inputs = ContractInputs(stage="start", old_rows="unchanged")
    start = check_contract(model, expanded.tokenizer, expanded, before, inputs)
    assert [f for f in start if f.status in ("fail", "warn")] == []
    assert [part.training for part in model.modules()] == modes
    split = find_split(model)
    assert split is not None
    for part in split:  # twice where it is tied
        part.rows.new.data += 0.01 * torch.randn_like(part.rows.new)
    folder = export_model(model, expanded, tmp_path / "grown")
    checked = load_folder(folder, weights=True)
    findings = check_contract(
        checked,
        checked.tokenizer,
        load_manifest(folder),
        tmp_path / "base",
        ContractInputs(old_rows="unchanged"),
    )
    assert [f for f in findings if f.status == "fail"] == []
    assert {"old rows", "tie"} <= {f.name for f in findings if f.status == "pass"}


def test_an_expansion_folder_without_a_model_is_checked_as_far_as_it_goes(
    expansion_folder: str, base_folder: str
) -> None:
    checked = load_folder(expansion_folder, weights=True)
    manifest = load_manifest(expansion_folder)
    findings = check_contract(checked, checked.tokenizer, manifest, base_folder)
    assert {f.status for f in findings} == {"pass", "skip"}
    skipped = {f.item for f in findings if f.status == "skip"}
    assert {1, 7, 11, 12, 13, 14} <= skipped


def shards(folder: Path) -> None:
    make_base("phi-bias").save_pretrained(folder, max_shard_size="8KB")
    assert (folder / "model.safetensors.index.json").is_file()


def without_the_name_of_the_backbone(folder: Path) -> None:
    base: Any = make_base("gpt2-tied")
    base.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    short = {name.removeprefix("transformer."): part for name, part in tensors.items()}
    save_file(short, folder / "model.safetensors")


@pytest.mark.parametrize("write", [shards, without_the_name_of_the_backbone])
def test_stored_rows_are_those_of_the_model(write: Any, tmp_path: Path) -> None:
    write(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    model: Any = make_base("phi-bias" if write is shards else "gpt2-tied")
    found = stored_matrices(tmp_path, model)
    assert found is not None
    assert torch.equal(found.input, model.get_input_embeddings().weight)
    if write is shards:
        assert found.output is not None
        assert found.bias is not None
        assert torch.equal(found.output, model.lm_head.weight)
        assert torch.equal(found.bias, model.lm_head.bias)
    else:
        assert found.output is None


def test_a_folder_that_lacks_a_part_of_its_weights_is_named(tmp_path: Path) -> None:
    shards(tmp_path)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text("utf-8"))
    missing = index["weight_map"]["lm_head.weight"]
    (tmp_path / missing).unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks '{missing}', which its index says"):
        stored_matrices(tmp_path, make_base("phi-bias"))


def test_a_tied_model_may_be_stored_under_the_name_of_its_head(tmp_path: Path) -> None:
    model: Any = make_base("gpt2-tied")
    save_file({"lm_head.weight": model.lm_head.weight.detach().clone()}, tmp_path / SINGLE)
    found = stored_matrices(tmp_path, model)
    assert found is not None
    assert torch.equal(found.input, model.lm_head.weight)
    assert found.output is None


def test_a_base_without_weights_leaves_its_rows_out(base_folder: str, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((Path(base_folder) / name).read_bytes())
    checked = load_folder(base_folder, weights=True)
    findings = check_contract(checked, checked.tokenizer, base=tmp_path)
    (old_rows,) = [f for f in findings if f.name == "old rows"]
    assert old_rows.status == "skip"
    assert "no rows to read" in old_rows.found


def test_a_base_of_another_width_is_no_base(tied_folder: str, tmp_path: Path) -> None:
    other: Any = make_base("phi-bias")
    base = ModelWithTokenizer.of(other, make_tokenizer())
    checked = load_folder(tied_folder, weights=True)
    findings = check_contract(checked, checked.tokenizer, base=base)
    (old_rows,) = [f for f in findings if f.name == "old rows"]
    assert old_rows.status == "fail"
    assert "32 wide, those of the base 16" in old_rows.found
