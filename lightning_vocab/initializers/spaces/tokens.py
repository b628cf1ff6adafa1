"""What every space asks about tokens: which are ordinary, what they say, where they occur."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lightning_vocab.initializers.base import RowContext
from lightning_vocab.initializers.spaces.base import TokenVectors
from lightning_vocab.vocabulary.corpus import batches
from lightning_vocab.vocabulary.fingerprint import backend, without_limits

Ids = npt.NDArray[np.int64]
REPLACEMENT = "\ufffd"  # stands for bytes that are not a whole character


@dataclass(frozen=True, eq=False)
class CutTexts:
    """Texts cut into tokens, one behind the other.

    Args:
        ids: Ids of all texts, ``(num_tokens,)``.
        lengths: Number of tokens of each text, ``(num_texts,)``.
    """

    ids: Ids
    lengths: Ids


def is_ordinary(context: RowContext) -> Tensor:
    """Which of ``context.base_ids`` are no special tokens, ``(num_old,)``, on the CPU.

    The row of ``<|endoftext|>`` says nothing about words, and its states are unlike all others.
    """
    added = context.tokenizer.added_tokens_decoder.items()
    special = {id for id, token in added if token.special} | set(context.tokenizer.all_special_ids)
    ids = context.base_ids.cpu()
    return ~torch.isin(ids, torch.tensor(sorted(special), dtype=ids.dtype))


def surfaces_of(context: RowContext) -> tuple[list[str], list[str]]:
    """The texts of the new tokens and of ``context.base_ids``."""
    new = [token.surface for token in context.expansion.tokens]
    return new, context.texts(context.base_ids.tolist())


def words_of(surfaces: Iterable[str]) -> list[str | None]:
    """Surfaces without the spaces around them; None where no whole text is left."""
    stripped = (text.strip() for text in surfaces)
    return [word if word and REPLACEMENT not in word else None for word in stripped]


def places_by_id(context: RowContext) -> Ids:
    """For each id its place among the new tokens and then the base's, -1 elsewhere.

    New tokens have the places from 0, ``context.base_ids`` those from ``num_new``.
    """
    new, old = np.array(context.expansion.new_ids), context.base_ids.cpu().numpy()
    height = max(int(new.max()), int(old.max()), len(context.tokenizer) - 1) + 1
    places = np.full(height, -1, np.int64)
    places[new] = np.arange(len(new))
    places[old] = len(new) + np.arange(len(old))
    return places


def parted(context: RowContext, vectors: Tensor, knows: Tensor) -> TokenVectors:
    """Vectors of the new tokens and then of the base's, as two; special base tokens are unknown.

    Args:
        context: The base's rows, the new tokens and their pieces.
        vectors: Vectors of all, ``(num_new + num_old, width)``.
        knows: Which of them are known.
    """
    first = context.num_new
    knows_old = knows[first:] & is_ordinary(context)
    return TokenVectors(vectors[:first], knows[:first], vectors[first:], knows_old)


def cut(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> CutTexts:
    """The ids of texts, without start and end tokens, from the Rust backend.

    Args:
        tokenizer: The tokenizer.
        texts: The texts, each cut alone.
    """
    rust = backend(tokenizer)
    with without_limits(rust):
        encodings = rust.encode_batch_fast(list(texts), add_special_tokens=False)
    lengths = np.array([len(encoding) for encoding in encodings], np.int64)
    flat = chain.from_iterable(encoding.ids for encoding in encodings)
    return CutTexts(np.fromiter(flat, np.int64, int(lengths.sum())), lengths)


def cut_files(context: RowContext, paths: Sequence[str], text_field: str) -> Iterator[CutTexts]:
    """The documents of files, cut by the grown tokenizer, a batch at a time.

    Args:
        context: Holds the tokenizer.
        paths: Files as `read_texts` takes them.
        text_field: Field of a JSON line.
    """
    for texts in batches(read_texts(paths, text_field)):
        yield cut(context.tokenizer, texts)


def as_base(context: RowContext, texts: CutTexts) -> tuple[CutTexts, Ids]:
    """Texts as the base sees them: in place of each new token its pieces.

    Returns:
        The texts in base ids, and for each token of ``texts`` the place of its last base id,
        ``(num_tokens,)``.
    """
    place = np.full(max(int(texts.ids.max(initial=0)), max(context.expansion.new_ids)) + 1, -1)
    place[list(context.expansion.new_ids)] = np.arange(context.num_new)
    which = place[texts.ids]
    flat, counts = context.pieces.ids.cpu().numpy(), context.pieces.counts.cpu().numpy()
    offsets = context.pieces.offsets.cpu().numpy()
    sizes = np.where(which >= 0, counts[which], 1)
    ends = np.cumsum(sizes)
    ids = np.repeat(texts.ids, sizes)
    inside = np.arange(len(ids)) - np.repeat(ends - sizes, sizes)
    token = np.repeat(which, sizes)
    is_new = token >= 0
    ids[is_new] = flat[offsets[token[is_new]] + inside[is_new]]
    of_text = np.repeat(np.arange(len(texts.lengths)), texts.lengths)
    lengths = np.bincount(of_text, weights=sizes, minlength=len(texts.lengths)).astype(np.int64)
    return CutTexts(ids, lengths), ends - 1


def check_files(paths: Sequence[str]) -> None:
    """Complain about files that are not there or whose kind is unknown, before any work.

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If there is none, or its suffix is unknown.
    """
    if not paths:
        raise ValueError("Expected at least one text file, got none.")
    for path in paths:
        if not path.endswith((".txt", ".jsonl", ".jsonl.gz")):
            raise ValueError(f"Expected text as .txt, .jsonl or .jsonl.gz, got {path!r}.")
        if not Path(path).expanduser().is_file():
            raise FileNotFoundError(f"There is no text file {path!r}.")


def read_texts(paths: Sequence[str], text_field: str = "text") -> Iterator[str]:
    """The documents of files: lines of a ``.txt`` file, a field of JSON lines.

    Args:
        paths: ``.txt``, ``.jsonl`` or ``.jsonl.gz`` files in UTF-8.
        text_field: Field of a JSON line that holds the text.

    Raises:
        ValueError: If a line is no JSON object with that field as a string.
    """
    check_files(paths)
    for path in paths:
        opened = gzip.open if path.endswith(".gz") else open
        with opened(Path(path).expanduser(), "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                yield (
                    line.rstrip("\n")
                    if path.endswith(".txt")
                    else _field(line, text_field, f"line {number} of {path!r}")
                )


def _field(line: str, name: str, where: str) -> str:
    try:
        text = json.loads(line)[name]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"Expected a JSON object with the field {name!r} in {where}.") from error
    if not isinstance(text, str):
        raise ValueError(f"Expected text in the field {name!r} of {where}, got {text!r}.")
    return text
