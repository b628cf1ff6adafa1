"""Item 5: how documents begin and end, for the tokenizer, its base and the training data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from transformers import PreTrainedTokenizerBase

from lightning_vocab.contract.caches import cached_documents
from lightning_vocab.contract.finding import Check, Finding
from lightning_vocab.contract.rows_and_ids import template_ids
from lightning_vocab.contract.special_ids import end_ids
from lightning_vocab.contract.subject import ModelWithTokenizer, Subject

FRAME = Check(5, "start and end tokens")
DOCUMENTS = Check(5, "start and end of the training data")

_TAIL = 3  # a chat template writes a line break behind its end token


@dataclass(frozen=True)
class _Ends:
    """How the documents of a batch begin and end.

    Args:
        starts: First ids of rows that are documents.
        ends: Last few ids of rows that are documents.
        likely_starts: Ids behind an end token within full rows: of the next document, or of the
            next turn of a chat.
        doubled: Start tokens that follow a start token.
    """

    starts: list[int]
    ends: list[list[int]]
    likely_starts: list[int]
    doubled: int


def check_start_and_end(subject: Subject) -> Iterator[Finding]:
    """Item 5: what the tokenizer puts around text, in the base, and in the training data."""
    checked = subject.checked
    template = template_ids(checked.state.data["post_processor"])
    if any([checked.ids.get(token)] != ids for token, ids in template):
        yield FRAME.skipped("the post-processor writes wrong ids", "see items 2 and 3")
        return
    prefix = frame(checked.tokenizer)[0]
    shown = _framed(checked)
    if subject.base is None:
        yield FRAME.skipped("what the base puts around text is not known", "give the base")
    else:
        yield _as_base(subject.base, shown)
    ends = _seen(subject)
    if ends is None:
        yield DOCUMENTS.skipped("no training data to look at", "give a training batch or the cache")
        return
    problems = [
        *_starts(checked, prefix, ends),
        *_stops(checked, ends),
    ]
    yield from DOCUMENTS.settled(
        problems,
        f"{len(ends.starts or ends.likely_starts):,} starts and {len(ends.ends):,} ends of "
        f"documents fit the tokenizer, which writes {shown!r}",
    )


def frame(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The ids that a tokenizer puts in front of and behind a text.

    Args:
        tokenizer: The tokenizer.
    """
    whole = tokenizer("a").input_ids
    bare = tokenizer("a", add_special_tokens=False).input_ids
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    return [], []


def _framed(checked: ModelWithTokenizer) -> str:
    """How the tokenizer frames a text, such as ``<s> text``."""
    prefix, suffix = (
        [checked.tokens.get(id, str(id)) for id in part] for part in frame(checked.tokenizer)
    )
    return " ".join([*prefix, "text", *suffix])


def _as_base(base: ModelWithTokenizer, shown: str) -> Finding:
    if _framed(base) == shown:
        return FRAME.passed(f"{shown!r}, as in the base")
    return FRAME.failed(
        f"the tokenizer writes {shown!r}, the base {_framed(base)!r}",
        "restore the post_processor and add_bos_token / add_eos_token of the base",
    )


def _seen(subject: Subject) -> _Ends | None:
    tokenizer, inputs = subject.checked.tokenizer, subject.inputs
    eos = tokenizer.eos_token_id
    if inputs.batch is not None:
        ids = inputs.batch["input_ids"]
        # Without a mask a pad token of its own still tells; one that is eos tells nothing.
        pad = None if tokenizer.pad_token_id == eos else tokenizer.pad_token_id
        told = torch.ones_like(ids) if pad is None else ids != pad
        mask = inputs.batch.get("attention_mask", told) != 0
        rows = [row[kept].tolist() for row, kept in zip(ids, mask, strict=True)]
        is_padded = [not bool(kept.all()) for kept in mask]
        return _ends_of(rows, is_padded, tokenizer)
    documents = cached_documents(subject)
    if not documents:
        return None
    return _ends_of(documents, [True] * len(documents), tokenizer)


def _ends_of(
    rows: Sequence[list[int]],
    is_document: Sequence[bool],
    tokenizer: PreTrainedTokenizerBase,
) -> _Ends:
    """A row with padding is a document; within full rows, an end token tells where one begins.

    Where one token both starts and ends documents, and the tokenizer writes it, the next token
    tells nothing.
    """
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    found = _Ends([], [], [], sum(_doubled(row, bos) for row in rows) if bos != eos else 0)
    is_told = bos != eos or not frame(tokenizer)[0]
    for row, whole in zip(rows, is_document, strict=True):
        if whole and row:
            found.starts.append(row[0])
            found.ends.append(row[-_TAIL:])
        elif is_told:
            found.likely_starts.extend(
                right for left, right in pairwise(row) if left == eos != right
            )
    return found


def _doubled(row: list[int], bos: int | None) -> int:
    return sum(left == right == bos for left, right in pairwise(row))


def _starts(checked: ModelWithTokenizer, prefix: list[int], ends: _Ends) -> Iterator[Finding]:
    bos = checked.tokenizer.bos_token_id
    if ends.doubled:
        yield DOCUMENTS.failed(
            f"{ends.doubled:,} documents begin with the start token {bos} twice",
            "tokenise text that holds the start token (a chat template's) with "
            "add_special_tokens=False",
        )
    starts = ends.starts or ends.likely_starts
    if not starts:
        yield DOCUMENTS.skipped("no document begins in this data", "give more of it")
        return
    if prefix:
        with_start = sum(id == prefix[0] for id in starts)
        if with_start == 0 and ends.starts:
            yield DOCUMENTS.failed(
                f"the tokenizer puts {prefix[0]} in front of text, but none of "
                f"{len(starts):,} documents begins with it",
                "train with the start token, or ship a tokenizer that does not add it",
            )
        elif with_start < len(starts):
            yield DOCUMENTS.warned(
                f"{with_start:,} of {len(starts):,} documents begin with {prefix[0]}, which the "
                "tokenizer puts in front of text",
                "frame all documents alike; turns of a chat in full rows look like documents here",
            )
        return
    special = {bos, checked.tokenizer.eos_token_id} - {None}
    if all(id in special for id in starts):
        yield DOCUMENTS.warned(
            f"all {len(starts):,} documents begin with {starts[0]}, which the tokenizer "
            "does not put in front of text",
            "put it in front of prompts when the model is served",
        )


def _stops(checked: ModelWithTokenizer, ends: _Ends) -> Iterator[Finding]:
    known = end_ids(checked) | {checked.tokenizer.eos_token_id}
    stopped = sum(not known.isdisjoint(tail) for tail in ends.ends)
    if ends.ends and stopped == 0:
        yield DOCUMENTS.failed(
            f"none of {len(ends.ends):,} documents ends with an end token "
            f"({sorted(end_ids(checked))})",
            "put the end token behind each document: the model cannot learn to stop without it",
        )
    elif stopped < len(ends.ends):
        yield DOCUMENTS.warned(
            f"{stopped:,} of {len(ends.ends):,} documents end with an end token",
            "long documents are cut; others need their end token",
        )
