"""Does a description find its tokens? The rank of the right new token among all new tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_vocab.data.rows import Collate, Row
from lightning_vocab.grounding.rows import GroundingRows
from lightning_vocab.loss import NextTokenLoss, evaluating
from lightning_vocab.rows.locate import find_split

_Ids = npt.NDArray[np.int64]
_ROUNDING = 1e-12


class Retrieval(NamedTuple):
    """How often, and how nearly, descriptions find their tokens.

    Args:
        top1_share: Share of the rows in which every new token of the answer ranks first.
        mean_reciprocal_rank: Mean of ``1 / rank`` over the new tokens of all answers.
        num_rows: Number of rows.
        num_tokens: Number of new tokens in their answers.
    """

    top1_share: float
    mean_reciprocal_rank: float
    num_rows: int
    num_tokens: int


@dataclass(frozen=True, eq=False)
class _Questions:
    """Every place of an answer that holds a new token.

    Args:
        row: Row of each question, ascending, ``(num_questions,)``.
        position: Place of the token in its row.
        column: Place of the token among the new rows.
        other: Which question has another right answer, ``(num_others,)``.
        other_column: That answer's place among the new rows.
    """

    row: _Ids
    position: _Ids
    column: _Ids
    other: _Ids
    other_column: _Ids


@torch.no_grad()
def retrieve(
    loss: NextTokenLoss,
    rows: GroundingRows | Sequence[Row],
    *,
    batch_size: int = 64,
    block_elements: int = 1 << 22,
) -> Retrieval:
    """Rank the tokens of each answer among all new tokens, given all ids in front of them.

    ``top1_share`` is the share of descriptions from which a greedy search that may write nothing
    but new tokens finds the whole answer. The scores are the logits of the new rows alone, in
    float64; a cap or a scale of the logits changes no order. A token ranks behind every other token
    whose score is as high, so that rows which are all alike find nothing: their rank is the number
    of new tokens, never luck. Where the ids in front are the same in several rows (one description
    of several tokens), each of their answers is right and none is counted against another. Each
    description of a token is a row and counts for itself. Answer ids that are not new are read, but
    not asked for.

    Computed alike on every rank that has the same rows. Cost: one pass of all rows through the
    backbone and ``num_tokens * num_new * dim`` products. Memory: the hidden states of a batch and a
    block of scores.

    Args:
        loss: The loss over an expanded model: knows whether its head may be applied alone.
        rows: Ids with the number of those in front of the answer, as `grounding_rows` gives them.
        batch_size: Rows in a forward pass.
        block_elements: Scores in memory at a time.

    Raises:
        ValueError: If the model is not expanded, there is no row, a size is below 1, or an answer
            holds no new token or stands at the beginning of its row.
    """
    split = find_split(loss.model)
    if split is None or not len(rows) or min(batch_size, block_elements) < 1:
        raise ValueError(
            "Retrieval needs an expanded model, at least one row and sizes of at least 1, got "
            f"{type(loss.model).__name__} {'without' if split is None else 'with'} new rows, "
            f"{len(rows)} rows, batch_size={batch_size} and block_elements={block_elements}."
        )
    new_ids = split[1].rows.new_ids
    rows = sorted(map(rows.__getitem__, range(len(rows))), key=_length)  # saves padding
    questions = _questions(rows, new_ids.cpu().numpy())
    ranks = torch.empty(len(questions.row), dtype=torch.long)
    with evaluating(loss.model):
        sizes = batch_size, max(1, block_elements // len(new_ids))
        for part, scores, noise in _scores(_Head(loss, new_ids), rows, questions, *sizes):
            ranks[part] = _ranks(scores, noise, questions, part)
    missed = torch.bincount(torch.from_numpy(questions.row)[ranks > 1], minlength=len(rows))
    return Retrieval(
        top1_share=float((missed == 0).double().mean()),
        mean_reciprocal_rank=float(ranks.double().reciprocal().mean()),
        num_rows=len(rows),
        num_tokens=len(ranks),
    )


def _length(row: Row) -> int:
    return len(row["input_ids"])


def _questions(rows: Sequence[Row], new_ids: _Ids) -> _Questions:
    lengths = np.array([len(row["input_ids"]) for row in rows])
    contexts = np.array([int(row["num_context"]) for row in rows])
    ids = np.concatenate([np.asarray(row["input_ids"], np.int64) for row in rows])
    row = np.repeat(np.arange(len(rows)), lengths)
    position = np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    asked = np.isin(ids, new_ids) & (position >= contexts[row])
    empty = np.flatnonzero(np.bincount(row[asked], minlength=len(rows)) == 0)
    if len(empty) or contexts.min() < 1:
        raise ValueError(
            f"{len(empty)} of {len(rows)} rows have no new token in their answer, and the shortest "
            f"context is {contexts.min()} ids: expected rows that lead from a description to its "
            "tokens, and at least one id in front of each answer."
        )
    row, position, column = row[asked], position[asked], np.searchsorted(new_ids, ids[asked])
    other, other_column = _other_answers(rows, row, position, column)
    return _Questions(row, position, column, other, other_column)


def _other_answers(
    rows: Sequence[Row], row: _Ids, position: _Ids, column: _Ids
) -> tuple[_Ids, _Ids]:
    """Questions and the columns that answer the same question elsewhere, the own one left out."""
    answers: dict[bytes, set[int]] = {}
    fronts = [
        np.asarray(rows[r]["input_ids"], np.int64)[:p].tobytes()
        for r, p in zip(row.tolist(), position.tolist(), strict=True)
    ]
    for front, each in zip(fronts, column.tolist(), strict=True):
        answers.setdefault(front, set()).add(each)
    found = [
        (question, other)
        for question, (front, own) in enumerate(zip(fronts, column.tolist(), strict=True))
        for other in sorted(answers[front] - {own})
    ]
    pairs = np.array(found, dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _scores(
    head: _Head, rows: Sequence[Row], questions: _Questions, batch_size: int, block: int
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Blocks of questions with the scores of all new rows and their noise, in float64."""
    collate = Collate(pad_id=0)
    for first in range(0, len(rows), batch_size):
        batch = collate(rows[first : first + batch_size])
        start, end = np.searchsorted(questions.row, [first, first + batch_size]).tolist()
        row = torch.from_numpy(questions.row[start:end] - first)
        position = torch.from_numpy(questions.position[start:end] - 1)
        states = head.states(batch, row, position)
        for offset in range(0, len(states), block):
            some = states[offset : offset + block]
            yield slice(start + offset, start + offset + len(some)), *head.scores(some)


class _Head:
    """From batches to the scores of the new rows."""

    def __init__(self, loss: NextTokenLoss, new_ids: Tensor) -> None:
        split = find_split(loss.model)
        assert split is not None, "retrieve() has seen the new rows"
        self.model, self.is_streamed, self.new_ids = loss.model, loss.is_streamed, new_ids
        # Apple's GPUs have no float64.
        self.device = torch.device("cpu") if new_ids.device.type == "mps" else new_ids.device
        head = split[1].rows
        # As the model sees them: beside old rows of half precision new ones are stored in float32.
        self.rows = head.new.detach().to(head.old.dtype).to(self.device).double()
        bias = torch.zeros(len(self.rows)) if head.new_bias is None else head.new_bias.detach()
        self.bias = bias.to(head.old.dtype).to(self.device).double()
        norms = torch.linalg.vector_norm(self.rows, dim=1)
        self.largest = float(norms.max()), float(self.bias.abs().max())

    def states(self, batch: dict[str, Tensor], row: Tensor, position: Tensor) -> Tensor:
        """What the scores are made from, for each question: its hidden state or its logits."""
        ids, mask = (
            batch[name].to(self.new_ids.device) for name in ("input_ids", "attention_mask")
        )
        row, position = row.to(ids.device), position.to(ids.device)
        run = self.model.base_model if self.is_streamed else self.model
        output = run(input_ids=ids, attention_mask=mask, use_cache=False)
        if self.is_streamed:
            states: Tensor = output.last_hidden_state[row, position]
        else:
            states = output.logits[row, position][:, self.new_ids]
        return states.to(self.device).double()

    def scores(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Scores ``(some, num_new)``, and what rounding may make of none, ``(some, 1)``."""
        if not self.is_streamed:
            eps = torch.finfo(self.model.dtype).eps
            return states, 4 * eps * states.abs().amax(dim=1, keepdim=True)
        norms = torch.linalg.vector_norm(states, dim=1, keepdim=True)
        noise = _ROUNDING * (norms * self.largest[0] + self.largest[1])
        return torch.addmm(self.bias, states, self.rows.T), noise


def _ranks(scores: Tensor, noise: Tensor, questions: _Questions, part: slice) -> Tensor:
    """Rank of each right answer: how many scores are not below its own, itself among them."""
    column = torch.from_numpy(questions.column[part]).to(scores.device).unsqueeze(1)
    start, end = np.searchsorted(questions.other, [part.start, part.stop]).tolist()
    other = torch.from_numpy(questions.other[start:end] - part.start).to(scores.device)
    other_column = torch.from_numpy(questions.other_column[start:end]).to(scores.device)
    right = scores.gather(1, column)
    scores[other, other_column] = -torch.inf
    # Not ">=": a score that is nan is below nothing, and nothing is below it.
    return (~(scores < right - noise)).sum(dim=1).cpu()
