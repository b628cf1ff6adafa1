"""Prompts and answers to ids, and where the answer and the tokens of the pair stand in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from lightning_vocab.grounding.chat import as_chat
from lightning_vocab.grounding.pairs import Pair
from lightning_vocab.grounding.templates import Direction


class Question(NamedTuple):
    """A template with a pair put in.

    Args:
        prompt: All in front of the answer.
        answer: The answer.
        place: Character of the prompt at which the other half of the pair begins.
        pair: The pair.
    """

    prompt: str
    answer: str
    place: int
    pair: Pair


class EncodedQuestions(NamedTuple):
    """Rows of some questions, one behind the other.

    Args:
        input_ids: Ids of all rows.
        lengths: Ids of each row.
        num_context: Leading ids of each row that are no answer.
        misread: Pairs whose tokens are not read as their ids.
        unread: Pairs whose answer gives no id at all.
    """

    input_ids: NDArray[numpy.int32]
    lengths: NDArray[numpy.int64]
    num_context: NDArray[numpy.int32]
    misread: list[Pair]
    unread: list[Pair]


@dataclass(frozen=True)
class Encoder:
    """Makes rows of the questions of one direction.

    Args:
        tokenizer: The grown tokenizer.
        token_ids: Id of every token of the pairs.
        direction: Which half of the pair is the answer.
        front: Ids in front of the text.
        back: Ids behind it, which are targets too.
        chat: Whether the prompt is a message of a user.
    """

    tokenizer: PreTrainedTokenizerBase
    token_ids: Mapping[str, int]
    direction: Direction
    front: tuple[int, ...]
    back: tuple[int, ...]
    chat: bool

    def encode(self, questions: Sequence[Question]) -> EncodedQuestions:
        """Encode prompt and answer as one text, all texts in one call of the Rust backend.

        The ids of the answer are those whose characters end behind the answer's beginning.

        Args:
            questions: At least one question.
        """
        prompts, places = self._prompts(questions)
        texts = [f"{prompt}{q.answer}" for prompt, q in zip(prompts, questions, strict=True)]
        encoded = self.tokenizer(
            texts,
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        spans = _Spans.of(encoded["offset_mapping"])
        answers = numpy.array([len(prompt) for prompt in prompts])
        in_answer = spans.rows[spans.stops > answers[spans.rows]]
        num_answers = numpy.bincount(in_answer, minlength=len(questions))
        mentions = answers if self.direction == "to_tokens" else places
        misread = self._misread(questions, spans, mentions, _flat(encoded["input_ids"]))
        rows = [[*self.front, *ids, *self.back] for ids in encoded["input_ids"]]
        lengths = numpy.array([len(row) for row in rows])
        return EncodedQuestions(
            _flat(rows),
            lengths,
            (lengths - len(self.back) - num_answers).astype(numpy.int32),
            misread,
            [questions[row].pair for row in numpy.flatnonzero(num_answers == 0).tolist()],
        )

    def _prompts(self, questions: Sequence[Question]) -> tuple[list[str], NDArray[numpy.int64]]:
        """The prompts as they are read, and where each holds the other half of its pair."""
        prompts = [question.prompt for question in questions]
        places = numpy.array([question.place for question in questions])
        if not self.chat:
            return prompts, places
        texts, moves = zip(*as_chat(self.tokenizer, prompts), strict=True)
        return list(texts), places + moves

    def _misread(
        self,
        questions: Sequence[Question],
        spans: _Spans,
        mentions: NDArray[numpy.int64],
        ids: NDArray[numpy.int32],
    ) -> list[Pair]:
        """The pairs whose text, at ``mentions``, is not read as exactly the ids of its tokens."""
        ends = mentions + [len(question.pair.text) for question in questions]
        is_inside = (spans.starts < ends[spans.rows]) & (spans.stops > mentions[spans.rows])
        num_inside = numpy.bincount(spans.rows[is_inside], minlength=len(questions))
        found = numpy.split(ids[is_inside], numpy.cumsum(num_inside)[:-1])
        return [
            question.pair
            for question, row in zip(questions, found, strict=True)
            if row.tolist() != [self.token_ids[token] for token in question.pair.tokens]
        ]


class _Spans(NamedTuple):
    """Row, first character and end of every id of some texts, each ``(ids,)``."""

    rows: NDArray[numpy.int64]
    starts: NDArray[numpy.int32]
    stops: NDArray[numpy.int32]

    @classmethod
    def of(cls, offsets: Sequence[Sequence[tuple[int, int]]]) -> _Spans:
        lengths = [len(row) for row in offsets]
        starts, stops = _flat(chain.from_iterable(offsets)).reshape(-1, 2).T
        return cls(numpy.repeat(numpy.arange(len(lengths)), lengths), starts, stops)


def _flat(rows: Iterable[Iterable[int]]) -> NDArray[numpy.int32]:
    return numpy.fromiter(chain.from_iterable(rows), numpy.int32)
