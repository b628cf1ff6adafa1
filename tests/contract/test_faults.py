"""Each fault is found by exactly the item whose business it is."""

from __future__ import annotations

import copy
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_vocab.contract import ITEMS
from lightning_vocab.contract.probes import OLD_TEXT
from tests.conftest import case
from tests.contract.cases import Case, failed_items
from tests.contract.faults import FAULTS, TIED_ONLY, UNTIED_ONLY


def test_of_a_clean_case_everything_is_checked_and_passes(clean: Case) -> None:
    findings = clean.findings()
    assert [(f.item, f.status, f.found) for f in findings if f.status != "pass"] == []
    assert {finding.item for finding in findings} == set(ITEMS)
    assert not any(finding.remedy for finding in findings)


OF_THE_ROWS = {1, 7, 11, 12, 13, 14, 16}
ONLY = {"tied": TIED_ONLY, "untied": UNTIED_ONLY}


def tied_and_untied(name: str) -> list[pytest.ParameterSet]:
    """A fault on both kinds of model, where it can be; quick where it can hide better."""
    both = [kind for kind in ONLY if all(name not in ONLY[o] for o in ONLY if o != kind)]
    quick = both[-1] if FAULTS[name][0] in OF_THE_ROWS else both[0]
    return [case(kind, name, quick=kind == quick, id=f"{name}-{kind}") for kind in both]


@pytest.mark.parametrize(
    ("shipped", "name"),
    [each for name in FAULTS for each in tied_and_untied(name)],
    indirect=["shipped"],
)
def test_a_fault_fails_its_item_and_no_other(name: str, clean: Case, tmp_path: Path) -> None:
    item, inject = FAULTS[name]
    inject(clean, tmp_path)
    findings = clean.findings()
    assert failed_items(findings) == {item}, [f for f in findings if f.status == "fail"]
    assert all(finding.remedy for finding in findings if finding.status != "pass")


def test_a_cache_that_was_cut_before_the_tokenizer_changed_is_stale(clean: Case) -> None:
    cache = clean.inputs["cache"]
    clean.edit(lambda data: data["model"]["merges"].pop())
    clean.inputs["cache"] = cache
    assert failed_items(clean.findings()) == {2, 15}


def test_a_manifest_of_another_base_is_a_warning(clean: Case) -> None:
    assert clean.base is not None
    clean.base = replace(clean.base, tokenizer=copy.deepcopy(clean.base.tokenizer))
    clean.base.tokenizer.chat_template = None
    (manifest, _) = [f for f in clean.findings() if f.name == "manifest"]
    assert manifest.status == "warn"
    assert "another base" in manifest.found


def test_every_item_has_a_fault() -> None:
    assert {item for item, _ in FAULTS.values()} == set(ITEMS)
    assert len(FAULTS) >= 30


WITHOUT_BASE = (
    "nfkc_put_in_front",
    "decoder_lost",
    "lstrip_on_an_added_token",
    "eos_as_padding_idx",
    "tie_broken_by_a_copy",
    "a_dead_merge",
    "eos_of_the_config_is_another",
    "text_framed_by_the_id_of_another_token",
    "padding_rows_can_be_generated",
)


@pytest.mark.parametrize("shipped", ["tied"], indirect=True)
@pytest.mark.parametrize("name", WITHOUT_BASE)
def test_faults_that_need_no_base_are_found_without_one(
    name: str, clean: Case, tmp_path: Path
) -> None:
    clean.base = None
    item, inject = FAULTS[name]
    inject(clean, tmp_path)
    assert failed_items(clean.findings()) == {item}


AS_BASE = ("nfkc_put_in_front", "rstrip_on_a_token_of_the_base", "eos_of_the_config_is_another")


@pytest.mark.parametrize("shipped", ["untied"], indirect=True)
@pytest.mark.parametrize("name", AS_BASE)
def test_what_the_base_has_as_well_is_a_warning(name: str, clean: Case, tmp_path: Path) -> None:
    item, inject = FAULTS[name]
    inject(clean, tmp_path)
    assert clean.base is not None
    # The grown model without its new tokens is as good a base as any that has the fault.
    own = Case(clean.model, clean.tokenizer, None, None, {})
    base = type(clean.base).of(copy.deepcopy(own.model), copy.deepcopy(own.tokenizer))
    clean.base = base
    findings = clean.findings()
    assert item not in failed_items(findings)
    assert any(f.item == item and f.status == "warn" for f in findings)


def test_what_is_not_given_is_said_and_never_passed(clean: Case) -> None:
    bare = Case(clean.model, clean.tokenizer, None, None, {})
    skipped = {f.name: f.remedy for f in bare.findings() if f.status == "skip"}
    assert all(skipped.values())
    assert set(skipped) == {
        "ids",  # which are new
        "special ids of the base",
        "padding in labels",
        "start and end tokens",
        "start and end of the training data",
        "stop strings",
        "tie",  # compared with the config alone
        "logits memory",
        "effective context",
        "new rows",
        "divisible rows",
        "cached data",
        "old text",
        "old rows",
    }


def test_the_text_that_counts_tokens_does_not_tell_normalizers_apart() -> None:
    assert all(unicodedata.normalize("NFKC", text) == text for text in OLD_TEXT)
