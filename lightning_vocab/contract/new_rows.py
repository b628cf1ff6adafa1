"""Item 12: the rows of the new tokens."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_vocab.contract.finding import Check, Finding, some
from lightning_vocab.contract.row_values import (
    RowNorms,
    is_unfit,
    norms_of,
    repeated_rows,
    unfinite_ids,
)
from lightning_vocab.contract.rows_and_ids import NO_MODEL
from lightning_vocab.contract.stored import Matrices
from lightning_vocab.contract.subject import Subject

NEW_ROWS = Check(12, "new rows")
TRAINED = Check(12, "training of the new rows")


def check_new_rows(subject: Subject) -> Iterator[Finding]:
    """Item 12: new rows are finite, distinct, of a usual norm, and were trained."""
    matrices = subject.checked.matrices if subject.checked.model is not None else None
    if matrices is None:
        yield NEW_ROWS.skipped("no model to look at", NO_MODEL)
        return
    yield from NEW_ROWS.settled(_unfinite(subject, matrices), "all rows with a token are finite")
    if subject.new_ids is None:
        yield NEW_ROWS.skipped("which rows are new is not known", "give the expansion or the base")
        return
    if not subject.new_ids:
        yield NEW_ROWS.skipped("there are no new rows", "check a grown model")
        return
    yield from _values(subject, matrices)
    yield from _training(subject, matrices)


def _values(subject: Subject, matrices: Matrices) -> Iterator[Finding]:
    tokens, problems, shown = set(subject.checked.tokens), [], []
    new = tokens.intersection(subject.new_ids or ())
    for name, rows in matrices.named().items():
        ids, old = (sorted(id for id in each if id < len(rows)) for each in (new, tokens - new))
        if rows.dim() != 2 or not ids:
            continue
        norms = norms_of(rows, ids, old)
        problems += [*_repeated(subject, name, rows, ids, old), *_unusual(subject, name, norms)]
        shown.append(f"{name}: {norms}")
    if not shown:
        yield NEW_ROWS.skipped("no new token has a row", "see items 1 and 2")
        return
    yield from NEW_ROWS.settled(
        problems, f"{len(new):,} new rows are distinct and of usual norm ({'; '.join(shown)})"
    )


def _unfinite(subject: Subject, matrices: Matrices) -> Iterator[Finding]:
    for name, values in matrices.named().items():
        wrong = [id for id in unfinite_ids(values) if id in subject.checked.tokens]
        if wrong:
            yield NEW_ROWS.failed(
                f"{len(wrong):,} {name} are nan or infinite, such as those of "
                f"{some(subject.checked.tokens[id] for id in wrong)}",
                "find the step at which training diverged, and start before it",
            )


def _repeated(
    subject: Subject, name: str, rows: Tensor, ids: list[int], old: list[int]
) -> Iterator[Finding]:
    repeated = repeated_rows(rows, ids, old)
    if not repeated:
        return
    made = NEW_ROWS.failed if subject.inputs.stage == "trained" else NEW_ROWS.warned
    yield made(
        f"{len(repeated):,} new {name} equal another row, such as those of "
        f"{some(subject.checked.tokens[id] for id in repeated)}",
        "start them apart (SubwordMean, or noise) and train them: the model cannot tell them apart",
    )


def _unusual(subject: Subject, name: str, norms: RowNorms) -> Iterator[Finding]:
    outside, is_far = norms.outside(), is_unfit(norms)
    is_start = subject.inputs.stage == "start"
    # Rows that start as means of others are shorter than these: training is there to change that.
    if not outside or (is_start and not is_far):
        return
    yield (NEW_ROWS.failed if is_far and not is_start else NEW_ROWS.warned)(
        f"{len(outside):,} new {name} have a norm outside the range of old rows ({norms}), such as "
        f"{some(subject.checked.tokens[id] for id in outside)}",
        "lower the learning rate or train longer; head rows of large norm win too much probability",
    )


def _training(subject: Subject, matrices: Matrices) -> Iterator[Finding]:
    if subject.inputs.stage == "start":
        yield TRAINED.skipped("training has not begun", "check the trained model")
        return
    if subject.inputs.initial_rows is None and subject.base is None:
        yield TRAINED.skipped(
            "the first values of the new rows are not known", "give initial_rows, or the base"
        )
        return
    problems = [*_as_initial(subject, matrices), *_as_base(subject, matrices)]
    if subject.inputs.initial_rows is not None:
        yield from TRAINED.settled(problems, "all new rows differ from their first values")
        return
    stored = None if subject.base is None else subject.base.matrices
    base_rows = 0 if stored is None else len(stored.input)
    new_ids = subject.new_ids or ()
    slots = sum(id < base_rows for id in new_ids)
    if slots < len(new_ids):
        problems.append(
            TRAINED.skipped(
                f"{len(new_ids) - slots:,} new rows have no first value to be compared with",
                "give initial_rows",
            )
        )
    found = f"{slots:,} new rows in slots of the base differ from what was there"
    yield from TRAINED.settled_in_part(problems, found) if slots else problems


def _as_initial(subject: Subject, matrices: Matrices) -> Iterator[Finding]:
    if subject.inputs.initial_rows is None:
        return
    ids = torch.tensor(subject.new_ids)
    first = dict(zip(("input rows", "head rows"), subject.inputs.initial_rows, strict=True))
    for name, rows in matrices.named().items():
        before = first.get(name)
        if before is None:
            continue
        if before.shape != (len(ids), rows.shape[1]):
            raise ValueError(
                f"Expected initial_rows ({len(ids)}, {rows.shape[1]}) for the {name}, got "
                f"{tuple(before.shape)}."
            )
        kept = ids[ids < len(rows)]
        now = rows[kept]
        same = (now == before[: len(kept)].to(now)).all(dim=1)
        yield from _untrained(subject, name, kept[same.cpu()])


def _as_base(subject: Subject, matrices: Matrices) -> Iterator[Finding]:
    """Slots and padded rows of the base that got a token: an untouched one was never trained."""
    base = None if subject.base is None else subject.base.matrices
    if base is None:
        return
    for name, rows in matrices.named().items():
        before = base.named().get(name)
        if before is None or rows.dim() != 2 or before.shape[1:] != rows.shape[1:]:
            continue
        ids = torch.tensor(
            [id for id in subject.new_ids or () if id < min(len(before), len(rows))],
            dtype=torch.long,
        )
        same = (rows[ids] == before[ids].to(rows)).all(dim=1)
        yield from _untrained(subject, name, ids[same.cpu()])


def _untrained(subject: Subject, name: str, ids: Tensor) -> Iterator[Finding]:
    if len(ids):
        yield TRAINED.failed(
            f"{len(ids):,} new {name} have still their first value, such as those of "
            f"{some(subject.checked.tokens.get(id, id) for id in ids.tolist())}",
            "train on text that holds these tokens, or leave them out of the vocabulary",
        )
