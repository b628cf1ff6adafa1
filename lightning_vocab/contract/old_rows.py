"""Item 16: the rows of the base's tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_vocab.contract.finding import Check, Finding
from lightning_vocab.contract.row_values import largest_change
from lightning_vocab.contract.rows_and_ids import NO_MODEL
from lightning_vocab.contract.stored import Matrices
from lightning_vocab.contract.subject import ModelWithTokenizer, Subject
from lightning_vocab.vocabulary.wording import counted

OLD_ROWS = Check(16, "old rows")


def check_old_rows(subject: Subject) -> Iterator[Finding]:
    """Item 16: the rows of the base's tokens are the base's, bit for bit, unless trained."""
    base, checked = subject.base, subject.checked
    if base is None:
        yield OLD_ROWS.skipped("nothing to compare with", "give the base")
        return
    if checked.model is None:
        yield OLD_ROWS.skipped("no model to look at", NO_MODEL)
        return
    if subject.inputs.old_rows == "trained":
        yield OLD_ROWS.skipped("they were trained, so they differ", "say unchanged to compare them")
        return
    found, before = checked.matrices, base.matrices
    if found is None or before is None:
        yield OLD_ROWS.skipped(
            "the base has no rows to read", "give a base with weights (safetensors)"
        )
        return
    yield _compared(subject, base, found, before)


def _compared(
    subject: Subject, base: ModelWithTokenizer, found: Matrices, before: Matrices
) -> Finding:
    ids = torch.tensor(sorted(set(base.tokens).difference(subject.new_ids or ())))
    if found.input.shape[1] != before.input.shape[1]:
        return OLD_ROWS.failed(
            f"rows are {found.input.shape[1]} wide, those of the base {before.input.shape[1]}",
            "name the base that this model was grown from",
        )
    changes = dict(_changes(found, before, ids))
    if not changes:
        return OLD_ROWS.passed(f"as in the base, bit for bit: {counted(len(ids), 'old row')}")
    shown = "; ".join(
        f"{name}: {count:,} of {counted(len(ids), 'row')}, {_by(change)}"
        for name, (count, change) in changes.items()
    )
    if subject.inputs.old_rows == "unchanged":
        return OLD_ROWS.failed(
            f"old rows changed: {shown}",
            "take old rows from the base: train with FreezeBackbone or GradMaskNewRows",
        )
    return OLD_ROWS.warned(
        f"old rows changed: {shown}",
        "nothing if they were trained on purpose (old_rows=trained); else freeze them",
    )


def _by(change: float) -> str:
    return f"by up to {change:.3g}" if math.isfinite(change) else "to numbers that are not finite"


def _changes(
    found: Matrices, before: Matrices, ids: Tensor
) -> Iterator[tuple[str, tuple[int, float]]]:
    former = before.named()
    for name, values in found.named().items():
        # Of an untied head over a tied base, the base's one matrix is both.
        old = former.get(name, former["input rows"] if name == "head rows" else None)
        if old is None:
            continue
        kept = ids[ids < min(len(values), len(old))]
        count, change = largest_change(values, old, kept)
        if count:
            yield name, (count, change)
