"""Item 4: what of a training batch is a target."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_vocab.contract.finding import Check, Finding
from lightning_vocab.contract.subject import Subject
from lightning_vocab.data.rows import IGNORED

PADDING = Check(4, "padding in labels")


def check_padding(subject: Subject) -> Iterator[Finding]:
    """Item 4: padding is masked by position, so that a real end token stays a target."""
    batch, tokenizer = subject.inputs.batch, subject.checked.tokenizer
    if batch is None:
        yield PADDING.skipped("no batch to look at", "give a training batch")
        return
    ids, labels, mask = batch["input_ids"], batch["labels"], batch.get("attention_mask")
    if ids.shape != labels.shape or (mask is not None and mask.shape != ids.shape):
        yield PADDING.failed(
            f"input_ids {tuple(ids.shape)}, labels {tuple(labels.shape)} and attention_mask differ "
            "in shape",
            "give each token its label and its mask",
        )
        return
    is_target = labels != IGNORED
    attended = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask != 0
    if wrong := int((is_target & (labels != ids)).sum()):
        yield PADDING.failed(
            f"{wrong:,} labels are not the token at their place",
            "labels are the input_ids themselves, not shifted: the loss shifts them",
        )
        return
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    problems = [
        *_padded_targets(is_target, attended),
        *_masked_ends(ids, is_target, attended, end),
    ]
    if pad is not None and pad not in (end, tokenizer.bos_token_id):
        problems += _attended_padding(ids == pad, is_target, attended)
    elif mask is None:
        problems += _untold(ids, end if pad is None else pad)
    padded = int((~attended).sum())
    same = "; pad is eos, told apart by the mask" if pad == end and pad is not None else ""
    yield from PADDING.settled(
        problems, f"{int(is_target.sum()):,} targets, none of {padded:,} padded positions{same}"
    )


def _padded_targets(is_target: Tensor, attended: Tensor) -> Iterator[Finding]:
    if wrong := int((is_target & ~attended).sum()):
        yield PADDING.failed(
            f"{wrong:,} padded positions are targets",
            f"set labels to {IGNORED} where attention_mask is 0",
        )


def _attended_padding(is_pad: Tensor, is_target: Tensor, attended: Tensor) -> Iterator[Finding]:
    if wrong := int((is_pad & attended & is_target).sum()):
        yield PADDING.failed(
            f"{wrong:,} pad tokens are targets",
            f"set their labels to {IGNORED} and their attention_mask to 0",
        )
    elif seen := int((is_pad & attended).sum()):
        yield PADDING.warned(
            f"{seen:,} pad tokens are attended to", "set their attention_mask to 0"
        )


def _masked_ends(
    ids: Tensor, is_target: Tensor, attended: Tensor, end: int | None
) -> Iterator[Finding]:
    """An end token right behind a target is a real one: a mask by id has taken it for padding."""
    if end is None:
        return
    is_end = (ids == end) & attended
    behind = is_end[:, 1:] & ~is_end[:, :-1] & is_target[:, :-1]
    lost, kept = (int((behind & each).sum()) for each in (~is_target[:, 1:], is_target[:, 1:]))
    if lost and not kept:
        yield PADDING.failed(
            f"all {lost:,} end tokens (id {end}) behind a target are masked: the model cannot "
            "learn to stop",
            "mask labels by position (attention_mask), never by the id of the pad token",
        )
    elif lost:
        yield PADDING.warned(
            f"{lost:,} of {lost + kept:,} end tokens behind a target are masked",
            "mask labels by position (attention_mask), never by the id of the pad token",
        )


def _untold(ids: Tensor, pad: int | None) -> Iterator[Finding]:
    if pad is None or ids.shape[1] < 2:
        return
    rows = int(((ids[:, -1] == pad) & (ids[:, -2] == pad)).sum())
    if rows:
        yield PADDING.failed(
            f"{rows:,} rows end in several tokens {pad}, which is pad and end token: without a "
            "mask they cannot be told apart",
            "give attention_mask with the batch, and mask labels by it",
        )
