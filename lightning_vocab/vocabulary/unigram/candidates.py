"""Candidates for new tokens: the pieces of a Unigram model that SentencePiece trains on words."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import sentencepiece

from lightning_vocab.vocabulary.bpe.layout import BLANK
from lightning_vocab.vocabulary.unigram.words import Fragments

_THREADS = 16  # the sums of a training depend on their number, not on that of the cores


def train_pieces(
    fragments: Fragments, num_pieces: int, max_length: int
) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Pieces and their log-probabilities; fewer than wanted where the words give no more.

    Single characters are among them.

    Args:
        fragments: The words, with blanks as the base spells them.
        num_pieces: Number of pieces to train, single characters aside.
        max_length: Longest piece, in characters.
    """
    if not fragments.texts:
        return [], np.zeros(0)
    alphabet = len(set().union(*fragments.texts))
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_lines(fragments),
        input_format="tsv",
        model_writer=model,
        model_type="unigram",
        vocab_size=num_pieces + alphabet + 1,
        hard_vocab_limit=False,
        character_coverage=1.0,
        shrinking_factor=0.5,  # half the rounds and half the time; the choice is made elsewhere
        num_sub_iterations=1,
        max_sentencepiece_length=max_length,
        max_sentence_length=2**30,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        bos_id=-1,
        eos_id=-1,
        num_threads=_THREADS,
        minloglevel=2,
    )
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    ids = list(range(1, trained.get_piece_size()))  # 0 is its unk
    return trained.id_to_piece(ids), np.array(trained.get_score(ids), np.float64)


def _lines(fragments: Fragments) -> Iterator[str]:
    """Each word with its count.

    The trainer starts from substrings that can go on in two ways. A word of which nothing is a
    longer form always ends the same way; so that it can become a piece, half of its count is given
    with a blank behind it, which the trainer cuts off as the start of another word.
    """
    for text, count in zip(fragments.texts, fragments.counts.tolist(), strict=True):
        if count > 1:
            yield f"{text}{BLANK}\t{count // 2}"
        yield f"{text}\t{count - count // 2}"
