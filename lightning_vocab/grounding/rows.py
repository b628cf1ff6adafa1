"""Pairs as rows of ids, of which the answer alone is a target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, get_args

import numpy
from numpy.typing import NDArray
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase
from typing_extensions import override

from lightning_vocab.data.rows import Row
from lightning_vocab.data.tokenise import Frame
from lightning_vocab.grounding.chat import check_chat
from lightning_vocab.grounding.encoding import EncodedQuestions, Encoder, Question
from lightning_vocab.grounding.pairs import Pair
from lightning_vocab.grounding.templates import Direction, Templates
from lightning_vocab.vocabulary.wording import counted, some

_AT_A_TIME = 4096
"""Texts encoded in one call: the characters of every id are in Python's memory meanwhile."""


@dataclass(frozen=True)
class GroundingRows(Dataset[Row]):
    """Rows one behind the other in flat arrays.

    Args:
        input_ids: Ids of all rows, ``(ids,)``.
        ends: Where each row ends in ``input_ids``, ``(rows,)``.
        num_context: Leading ids of each row that are no answer, ``(rows,)``.
    """

    input_ids: NDArray[numpy.int32]
    ends: NDArray[numpy.int64]
    num_context: NDArray[numpy.int32]

    def __len__(self) -> int:
        return len(self.ends)

    @override
    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self):
            raise IndexError(f"Row {index} of {len(self)}.")
        start = int(self.ends[index - 1]) if index else 0
        ids = self.input_ids[start : int(self.ends[index])].astype(numpy.int64)
        return Row(input_ids=ids, num_context=int(self.num_context[index]))


def grounding_rows(
    pairs: Sequence[Pair],
    templates: Templates,
    tokenizer: PreTrainedTokenizerBase,
    frame: Frame,
    *,
    chat: bool = False,
    direction: Literal["both", "to_tokens", "to_description"] = "both",
    token_ids: Mapping[str, int] | None = None,
    block_size: int | None = None,
) -> GroundingRows:
    """A row for each pair and template: the prompt as context, the answer as targets.

    Prompt and answer are encoded as one text, so a blank in front of the answer stands where the
    tokenizer puts it in running text: in the answer's first token if that holds the blank, else in
    the prompt. A row is the start token, the text and, behind a description, the end token. Behind
    an answer of tokens nothing is trained: it would teach the new rows that text ends there.

    Rows whose answer is tokens come first; in each direction they go pair by pair, and template by
    template for each pair. Memory is four bytes an id and twelve a row.

    Args:
        pairs: The pairs.
        templates: The sentences.
        tokenizer: The grown tokenizer.
        frame: Its frame (`frame_of`).
        chat: Whether the prompt is put as a user's message by the tokenizer's chat template. The
            template alone then says what stands in front, its start token included.
        direction: Which templates to use.
        token_ids: Id of every token of the pairs; by default those of the tokenizer's added tokens.
        block_size: Greatest number of ids of a row; None asks nothing.

    Raises:
        ValueError: If there is no pair, a token has no id or is not read as that id in a sentence,
            a description gives no id, a row is longer than ``block_size``, or ``chat`` is asked
            of a tokenizer without a chat template.

    Example:
        >>> from lightning_vocab.data.tokenise import frame_of
        >>> from lightning_vocab.vocabulary import AddTokens
        >>> from tests.conftest import make_tokenizer
        >>> tokenizer = AddTokens(["<cat>"]).extend(make_tokenizer()).tokenizer
        >>> pair, frame = Pair(("<cat>",), "the cat"), frame_of(tokenizer)
        >>> row = grounding_rows([pair], Templates(), tokenizer, frame)[0]
        >>> tokenizer.decode(row["input_ids"])
        '<|end|>The token that stands for the cat is: <cat>'
        >>> tokenizer.decode(row["input_ids"][row["num_context"] :])
        '<cat>'
    """
    if not pairs:
        raise ValueError("Expected at least one pair of tokens and description, got none.")
    if chat:
        check_chat(tokenizer)
    ids = _ids_of(pairs, tokenizer.get_added_vocab() if token_ids is None else token_ids)
    front = () if chat else (frame.start,)
    parts = []
    for each in get_args(Direction) if direction == "both" else (direction,):
        back = (frame.end,) if each == "to_description" else ()
        encoder = Encoder(tokenizer, ids, each, front, back, chat)
        questions = _questions(pairs, templates, each)
        while some_questions := list(islice(questions, _AT_A_TIME)):
            parts.append(encoder.encode(some_questions))
    _check_read(parts)
    _check_length(parts, block_size)
    return GroundingRows(
        numpy.concatenate([part.input_ids for part in parts]),
        numpy.cumsum(numpy.concatenate([part.lengths for part in parts])),
        numpy.concatenate([part.num_context for part in parts]),
    )


def _questions(
    pairs: Sequence[Pair], templates: Templates, direction: Direction
) -> Iterator[Question]:
    for pair in pairs:
        for prompt, answer, place in templates.filled(direction, pair):
            yield Question(prompt, answer, place, pair)


def _ids_of(pairs: Sequence[Pair], known: Mapping[str, int]) -> dict[str, int]:
    tokens = dict.fromkeys(token for pair in pairs for token in pair.tokens)
    if missing := [token for token in tokens if token not in known]:
        raise ValueError(
            f"{counted(len(missing), 'token')} of the pairs have no new row: {some(missing)}. Add "
            "them to the vocabulary, or remove their pairs."
        )
    return {token: known[token] for token in tokens}


def _check_read(parts: Sequence[EncodedQuestions]) -> None:
    if misread := list(dict.fromkeys(pair.text for part in parts for pair in part.misread)):
        raise ValueError(
            f"The tokens of {counted(len(misread), 'pair')} are not read as the new tokens that "
            f"they name: {some(misread)}. Another token takes a part of their text, or they are "
            "cut together with the text around them: look at how the tokenizer cuts a "
            "sentence with them, and change the tokens or the templates."
        )
    if unread := list(dict.fromkeys(pair.description for part in parts for pair in part.unread)):
        raise ValueError(
            f"The tokenizer makes no token of {counted(len(unread), 'description')}: "
            f"{some(unread)}. Describe these tokens in other words."
        )


def _check_length(parts: Sequence[EncodedQuestions], block_size: int | None) -> None:
    if block_size is None:
        return
    lengths = numpy.concatenate([part.lengths for part in parts])
    if num_long := int((lengths > block_size).sum()):
        raise ValueError(
            f"Expected rows of at most {block_size} tokens (block_size), got "
            f"{counted(num_long, 'longer row')} of {len(lengths):,}, the longest of "
            f"{lengths.max()}: shorten descriptions or templates, or raise block_size."
        )
