"""Items 8 and 13: what the logits of a batch cost, and whether the chunked loss is the loss."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from lightning_vocab.contract.finding import Check, Finding
from lightning_vocab.contract.rows_and_ids import NO_MODEL
from lightning_vocab.contract.subject import Subject
from lightning_vocab.data.rows import IGNORED
from lightning_vocab.loss import NextTokenLoss, evaluating

MEMORY = Check(8, "logits memory")
LOSS = Check(13, "chunked loss")

_GIB = 1024**3
_BYTES = 4  # the softmax runs in float32, whatever the dtype of the weights
_USUAL_GIB = 4.0
_ROWS, _TIME = 3, 16


def check_memory(subject: Subject) -> Iterator[Finding]:
    """Item 8: bytes of the logits of one batch, built at once or in chunks."""
    inputs, rows = subject.inputs, subject.num_rows
    shape = (inputs.batch_size, inputs.sequence_length)
    if inputs.batch is not None:
        given = inputs.batch["input_ids"].shape
        shape = (shape[0] or given[0], shape[1] or given[1])
    if rows is None or shape[0] is None or shape[1] is None:
        yield MEMORY.skipped(
            "the number of rows or the shape of a batch is not known",
            "give the model, and a batch or batch_size and sequence_length",
        )
        return
    positions = shape[0] * shape[1]
    whole = positions * rows * _BYTES / _GIB
    at_once = min(positions, inputs.chunk_size or positions) * rows * _BYTES / _GIB
    found = f"{shape[0]} x {shape[1]} positions x {rows:,} rows in float32: {whole:.3g} GiB"
    if inputs.chunk_size is not None:
        found += f", {at_once:.3g} GiB in chunks of {inputs.chunk_size} while all rows train"
    remedy = (
        "score fewer positions at a time (chunk_size), a smaller batch or shorter rows; autograd "
        "keeps more than one tensor of this size"
    )
    if inputs.memory_gib is not None and at_once > inputs.memory_gib:
        yield MEMORY.failed(f"{found}; {inputs.memory_gib:g} GiB are allowed", remedy)
    elif inputs.memory_gib is None and at_once > _USUAL_GIB:
        yield MEMORY.warned(found, remedy)
    else:
        yield MEMORY.passed(found)


@torch.no_grad()
def check_loss(subject: Subject) -> Iterator[Finding]:
    """Item 13: the training loss of a small batch against plain cross-entropy of all logits.

    One row has a single target, the most surprising one; the others have their least surprising
    ones. A mean over all positions, or a mean of the rows' means, is then far from the mean over
    the targets.
    """
    model = subject.checked.model
    if model is None:
        yield LOSS.skipped("no model to compute a loss with", NO_MODEL)
        return
    if not subject.is_one_height:
        yield LOSS.skipped("the parts of the model differ in height", "see item 1")
        return
    input_ids = _small_batch(subject, model)
    with evaluating(model):
        nats = _plain_nats(model, input_ids)
        if not bool(nats.isfinite().all()):
            yield LOSS.skipped("the model's own loss is not finite", "see item 12")
            return
        labels = _contrasting_labels(input_ids, nats)
        batch = {
            "input_ids": input_ids,
            "labels": labels,
            "attention_mask": torch.ones_like(input_ids),
        }
        found = float((subject.inputs.loss or NextTokenLoss(model).mean_nats)(batch))
    is_target = labels[:, 1:] != IGNORED
    total, targets = float(nats[is_target].sum()), int(is_target.sum())
    yield _compared(found, total, targets, nats.numel(), model)


def _compared(
    found: float, total: float, targets: int, positions: int, model: PreTrainedModel
) -> Finding:
    expected = total / targets
    half = model.dtype in (torch.float16, torch.bfloat16)
    tolerance = (5e-2 if half else 1e-3) * max(1.0, abs(expected))
    if abs(found - expected) <= tolerance:
        return LOSS.passed(f"{found:.6g} nats, plain {expected:.6g}, over {targets} targets")
    hint = ""
    if abs(found - total / positions) <= tolerance:
        hint = f"; it is the sum divided by all {positions} positions"
    return LOSS.failed(
        f"{found:.6g} nats, plain cross-entropy gives {expected:.6g} over {targets} targets{hint}",
        "divide by the number of targets, and apply what the model does between backbone and "
        "logits (scale, soft cap, bias)",
    )


def _small_batch(subject: Subject, model: PreTrainedModel) -> Tensor:
    """Ids of tokens, drawn with a seed of their own: ``(rows, time)``."""
    bound = subject.num_rows or 1
    ids = torch.tensor(sorted(id for id in subject.checked.tokens if id < bound))
    generator = torch.Generator().manual_seed(5)
    time = min(_TIME, subject.checked.context or _TIME)
    return ids[torch.randint(len(ids), (_ROWS, time), generator=generator)].to(model.device)


def _plain_nats(model: PreTrainedModel, input_ids: Tensor) -> Tensor:
    """Nats of each token given those before it, from all logits: ``(rows, time - 1)``."""
    mask = torch.ones_like(input_ids)
    logits: Tensor = model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), input_ids[:, 1:], reduction="none")


def _contrasting_labels(input_ids: Tensor, nats: Tensor) -> Tensor:
    is_target = nats <= nats.median(dim=1, keepdim=True).values
    is_target[0] = nats[0] == nats[0].max()
    labels = torch.full_like(input_ids, IGNORED)
    labels[:, 1:] = input_ids[:, 1:].masked_fill(~is_target, IGNORED)
    return labels
