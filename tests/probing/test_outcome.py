from __future__ import annotations

import json
from collections.abc import Mapping
from io import StringIO

import pytest
import torch
from rich.console import Console

from lightning_vocab.initializers import Coverage
from lightning_vocab.probing.candidates import Candidate
from lightning_vocab.probing.outcome import Outcome
from lightning_vocab.probing.scores import DocumentScores
from lightning_vocab.probing.trials import Trial


def outcome(
    bits: Mapping[str, float], seconds: Mapping[str, float], num_documents: int = 9
) -> Outcome:
    """An outcome in which every document has the given bits a byte, and "third" is always worse."""
    candidates = [Candidate(label, {"class_path": f"package.{label}"}) for label in bits]
    num_bytes = torch.full((num_documents,), 10)
    trials = []
    for repeat in range(2):
        for label, each in bits.items():
            # The first two change places from one document to the next.
            swing = torch.tensor([0.1, -0.1] * num_documents)[:num_documents]
            nats = (each + swing * (label == "second")) * num_bytes * torch.log(torch.tensor(2.0))
            scores = {"new": DocumentScores(nats.double(), num_bytes)}
            coverage = Coverage(label, 4, ("x",), "SubwordMean") if label == "third" else None
            trials.append(
                Trial(label, repeat, scores, scores, seconds.get(label, 0.0), coverage, "frozen")
            )
    return Outcome.of(candidates, trials, "new", 50)


def test_the_cheapest_of_those_tied_with_the_best_is_named_as_good() -> None:
    bits = {"first": 2.02, "second": 2.0, "third": 3.0}
    found = outcome(bits, {"second": 4.0})
    assert found.best.label == "second"
    assert found.as_good is not None
    assert found.as_good.label == "first"
    assert "As good, and cheaper or simpler: first (+0.0" in found.verdict()


def test_what_is_worse_is_never_named_as_good_however_cheap() -> None:
    found = outcome({"third": 3.0, "second": 2.0}, {"second": 4.0})
    assert found.as_good is None
    assert found.verdict() == ("second: 2.0111 bits per byte of new after 50 steps, the best of 2.")


def test_a_hundredth_of_a_second_makes_nothing_cheaper_but_standing_first_does() -> None:
    bits = {"first": 2.0, "second": 2.01}
    assert outcome(bits, {"first": 0.02, "second": 0.01}).as_good is None
    tied = outcome({"second": 2.0, "first": 2.0}, {"first": 0.02}).as_good
    assert tied is not None
    assert tied.label == "second"


def test_everything_is_said_in_the_table_in_words_and_as_json() -> None:
    found = outcome({"first": 2.02, "second": 2.0, "third": 3.0}, {})
    console = Console(width=80, record=True, file=StringIO())
    console.print(found.table())
    shown = console.export_text()
    for words in ("second", "noise", "worse", "75.0%", "3.0000", "+0.9889"):
        assert words in shown
    said = "\n".join(found.lines())
    assert "9 documents, 2 seeds" in said
    assert "the new rows alone trained" in said
    assert "third made 3 of 4 new tokens" in said
    plain = json.loads(json.dumps(found.as_plain(), allow_nan=False))
    assert [each["verdict"] for each in plain["initializers"]] == ["best", "noise", "worse"]
    assert plain["initializers"][2]["coverage"] == 0.75
    assert plain["as_good"] == {"class_path": "package.first"}
    assert plain["initializers"][0]["bits_per_byte_of_each_seed"]["end"]["new"] == pytest.approx(
        [2.0111] * 2, abs=1e-4
    )


def test_few_documents_are_said_to_prove_nothing() -> None:
    found = outcome({"first": 2.0, "third": 3.0}, {}, num_documents=3)
    assert "Fewer than 5 documents" in "\n".join(found.lines())
    assert [each.verdict for each in found.standings] == ["best", "noise"]
