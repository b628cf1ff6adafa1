"""Item 12: the rows of the new tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import torch
from torch import Tensor

from lightning_vocab.contract.equal_rows import EqualRows
from lightning_vocab.contract.finding import Check, Finding
from lightning_vocab.contract.row_values import RowNorms, norms_of, unfinite_ids
from lightning_vocab.contract.rows_and_ids import NO_MODEL
from lightning_vocab.contract.stored import Matrices
from lightning_vocab.contract.subject import Subject
from lightning_vocab.vocabulary.wording import counted, some

NEW_ROWS = Check(12, "new rows")
TRAINED = Check(12, "training of the new rows")

_FEW = 0.05  # of the new rows: what a short run leaves as SubwordMean began it


_APART = "start them apart (SubwordMean, or noise): the model cannot tell them apart"
_HARDLY_SEEN = (
    "training did not tell these tokens apart, it has hardly seen them: train longer, leave them "
    "out (min_frequency of the extender), or start them apart with noise"
)


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
    tokens, shown = set(subject.checked.tokens), []
    problems: list[Finding] = []
    new = tokens.intersection(subject.new_ids or ())
    for name, rows in matrices.named().items():
        ids, old = (sorted(id for id in each if id < len(rows)) for each in (new, tokens - new))
        if rows.dim() != 2 or not ids:
            continue
        equal = EqualRows.of(subject, rows, ids, old)
        problems += _repeated(subject, name, equal, len(ids))
        said = f", {len(equal.by_pieces)} of equal pieces alike" if equal.by_pieces else ""
        broken = set(unfinite_ids(rows))  # they have a finding of their own
        if finite := [id for id in ids if id not in broken]:
            norms = norms_of(rows, finite, old)
            problems += _unusual(subject, name, norms)
            said += f", {norms}"
        shown.append(f"{name}: {said.removeprefix(', ') or 'none is finite'}")
    if not shown:
        yield NEW_ROWS.skipped("no new token has a row", "see items 1 and 2")
        return
    yield from NEW_ROWS.settled(
        problems,
        f"{counted(len(new), 'new row')} told apart and of usual norm ({'; '.join(shown)})",
    )


def _unfinite(subject: Subject, matrices: Matrices) -> Iterator[Finding]:
    for name, values in matrices.named().items():
        wrong = [id for id in unfinite_ids(values) if id in subject.checked.tokens]
        if wrong:
            yield NEW_ROWS.failed(
                f"nan or infinite: {_counted(wrong, name)}, such as "
                f"{some(subject.checked.tokens[id] for id in wrong)}",
                "find the step at which training diverged, and start before it",
            )


def _repeated(subject: Subject, name: str, equal: EqualRows, num_new: int) -> Iterator[Finding]:
    """Equal rows are a fault, save by equal pieces before training, or a few after it."""
    at_start, tokens = subject.inputs.stage == "start", subject.checked.tokens
    if equal.as_old:
        yield (NEW_ROWS.warned if at_start else NEW_ROWS.failed)(
            f"equal to the row of an old token: {_counted(equal.as_old, name, 'new ')}, such as "
            f"{some(tokens[id] for id in equal.as_old)}",
            f"{_APART}, then train them",
        )
    if at_start:
        groups = [(equal.alike, False)]
    else:  # without a manifest nobody knows whether the pieces explain it
        groups = [(equal.by_pieces, True), (equal.alike, subject.expansion is None)]
    for ids, may_be_few in groups:
        is_few = may_be_few and len(ids) < _FEW * num_new
        if ids:
            yield (NEW_ROWS.warned if at_start or is_few else NEW_ROWS.failed)(
                f"equal to another row: {_counted(ids, name, 'new ')} of {num_new:,}, such as "
                f"{some(tokens[id] for id in ids)}",
                _APART if at_start else _HARDLY_SEEN,
            )


def _unusual(subject: Subject, name: str, norms: RowNorms) -> Iterator[Finding]:
    far = norms.far()
    is_start = subject.inputs.stage == "start"
    # Rows that start as means of others are shorter than these: training is there to change that.
    if is_start and not far:
        return
    outside = far or norms.outside()
    if not outside:
        return
    where = "far outside" if far else "outside"
    yield (NEW_ROWS.failed if far and not is_start else NEW_ROWS.warned)(
        f"norm {where} the range of old rows ({norms}): {_counted(outside, name, 'new ')}, such as "
        f"{some(subject.checked.tokens[id] for id in outside)}",
        "lower the learning rate or train longer; head rows of large norm win too much probability",
    )


def _counted(ids: Sized, name: str, kind: str = "") -> str:
    """Such as "1 new input row", of a name such as "input rows"."""
    return counted(len(ids), kind + name.replace("rows", "row"))


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
                f"no first value to compare with: {counted(len(new_ids) - slots, 'new row')}",
                "give initial_rows",
            )
        )
    found = f"changed from what the base's slot held: {counted(slots, 'new row')}"
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
            f"still at their first value: {_counted(ids, name, 'new ')}, such as "
            f"{some(subject.checked.tokens.get(id, id) for id in ids.tolist())}",
            "train on text that holds these tokens, or leave them out of the vocabulary",
        )
