"""Item 7: whether embedding and head are one matrix."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from lightning_vocab.contract.finding import Check, Finding
from lightning_vocab.contract.rows_and_ids import NO_MODEL
from lightning_vocab.contract.subject import Subject
from lightning_vocab.initializers.stored_tensors import StoredTensors, name_in
from lightning_vocab.rows.ties import is_tied

TIE = Check(7, "tie")


def check_tie(subject: Subject) -> Iterator[Finding]:
    """Item 7: embedding and head are one object exactly where those of the base are."""
    checked, base = subject.checked, subject.base
    if checked.lacks_head:
        yield TIE.failed(
            "the folder stores no head, and its config says tie_word_embeddings=false: loading "
            "gives the model a random head",
            "set tie_word_embeddings to true if the model was tied, else save it with its head",
        )
        return
    if checked.model is None:
        yield TIE.skipped("no model to look at", NO_MODEL)
        return
    heights = subject.heights
    if heights["embedding"] != heights["head"]:
        yield TIE.skipped("embedding and head differ in height", "see item 1")
        return
    tied = is_tied(checked.model)
    said = getattr(checked.text_config, "tie_word_embeddings", None)
    found, wanted = _state(tied), said
    problems = list(_stored_apart(subject)) if tied else []
    if base is not None and base.shape is not None:
        wanted = is_tied(base.shape)
        found += f"; the base is {_state(wanted)}"
    else:
        problems.append(TIE.skipped("compared with the config alone", "give the base"))
    if said is not None:
        found += f"; the config says {_state(said)}"
    if any(each is not None and each != tied for each in (wanted, said)):
        remedy = "give the head a matrix of its own and set tie_word_embeddings to false"
        if wanted:
            remedy = "share one Parameter (tie_weights) and set tie_word_embeddings to true"
        problems.append(TIE.failed(found, remedy))
    yield from TIE.settled_in_part(problems, found)


def _state(tied: bool) -> str:
    return "tied" if tied else "untied"


def _stored_apart(subject: Subject) -> Iterator[Finding]:
    """A tied folder that stores a head of its own loses it when it is loaded."""
    checked = subject.checked
    if checked.folder is None or checked.model is None:
        return
    stored = StoredTensors(checked.folder)
    embedding, head = checked.model.get_input_embeddings(), checked.model.get_output_embeddings()
    assert head is not None
    inputs = stored.read(name_in(checked.model, embedding, "weight"))
    outputs = stored.read(name_in(checked.model, head, "weight"))
    if inputs is not None and outputs is not None and not torch.equal(inputs, outputs):
        yield TIE.failed(
            "the folder stores a head that differs from the embedding, and a config that ties "
            "them: loading drops one",
            "set tie_word_embeddings to false, or save the model tied",
        )
