"""Documents to rows of token ids, and what stands in front of, between and behind them.

Text is cut without special tokens and framed here, so that the frame is the same for every
tokenizer: the start token is ``bos_token_id``, else ``eos_token_id``; the end token is
``eos_token_id``. A protocol token that stands in the text itself is read as that token.

A tokenizer that drops or replaces text (lower-casing, NFKC, an unknown token) is scored on less
than the bytes that are counted: bits per byte flatter it, and must not be compared with a lossless
one's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import datasets
import numpy
from transformers import PreTrainedTokenizerBase

from lightning_vocab.data.documents import Documents
from lightning_vocab.vocabulary.measuring.fertility import encode_batch

Batch = dict[str, list[Any]]


@dataclass(frozen=True)
class Layout:
    """How documents become rows.

    Args:
        kind: ``packed``: one stream of documents, cut later by `PackedRows`. ``padded``: one row a
            document, with its end token. ``whole``: one row a document for bits per byte, without
            the end token, which stands for no byte. Long documents become several rows.
        block_size: Tokens of a row at most, at least 2. No matter for ``packed``.
        overlap: Tokens that a row repeats as context from the row before it in its document: at
            least 1, since the first token of a row cannot be a target.

    Raises:
        ValueError: If the block size or the overlap does not fit.
    """

    kind: Literal["packed", "padded", "whole"]
    block_size: int
    overlap: int = 1

    def __post_init__(self) -> None:
        if self.block_size < 2 or not 1 <= self.overlap < self.block_size:
            raise ValueError(
                f"Expected a block_size of at least 2 and an overlap from 1 to block_size - 1, got "
                f"{self.block_size} and {self.overlap}."
            )

    def identity(self) -> dict[str, Any]:
        """Plain values on which the tokenised rows depend."""
        if self.kind == "packed":
            return {"kind": self.kind}
        return {"kind": self.kind, "block_size": self.block_size, "overlap": self.overlap}


@dataclass(frozen=True)
class Frame:
    """The ids that stand around documents.

    Args:
        start: In front of every stream, of every padded row and of every validated document.
        end: Behind every document that is trained on.
        starts_documents: Whether the tokenizer itself puts its start token in front of text; then
            every document of a packed stream gets one too.
        pad: Fills short rows; masked by position, so it may be the end token.
    """

    start: int
    end: int
    starts_documents: bool
    pad: int


def frame_of(tokenizer: PreTrainedTokenizerBase) -> Frame:
    """The frame that ``tokenizer`` defines.

    Raises:
        ValueError: If it has no end token.
    """
    bos, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    if end is None:
        raise ValueError(
            "The tokenizer has no end token, so documents cannot be told apart: set its eos_token."
        )
    starts = bos is not None and tokenizer("a").input_ids[:1] == [bos]
    return Frame(end if bos is None else bos, end, starts, end if pad is None else pad)


def tokenise(
    documents: Documents,
    tokenizer: PreTrainedTokenizerBase,
    layout: Layout,
    *,
    num_proc: int = 1,
    scratch: Path | None = None,
) -> datasets.Dataset:
    """Rows of token ids.

    Args:
        documents: The documents.
        tokenizer: The tokenizer to cut with.
        layout: How documents become rows.
        num_proc: Processes to cut in; the Rust backend spreads even one over threads.
        scratch: An existing folder for the rows; None keeps them in memory.

    Returns:
        Columns ``input_ids`` and, unless packed, ``num_context`` (leading tokens that are no
        targets); whole rows also have ``num_bytes``, the document's UTF-8 bytes on its first row
        and 0 on the others, and ``document``, its place among the documents; they stand from long
        to short, which saves padding.
    """
    cut, columns = _CUTS[layout.kind]
    rows = documents.dataset.map(
        cut,
        batched=True,
        with_indices=layout.kind == "whole",
        fn_kwargs={"tokenizer": tokenizer, "frame": frame_of(tokenizer), "layout": layout},
        remove_columns=["text"],
        features=datasets.Features({name: _COLUMNS[name] for name in columns}),
        num_proc=num_proc if num_proc > 1 else None,
        keep_in_memory=scratch is None,
        cache_file_name=None if scratch is None else str(scratch / "rows.arrow"),
        load_from_cache_file=False,  # our cache goes by the tokenizer's fingerprint
        new_fingerprint=uuid4().hex,  # spares hashing the tokenizer's pickle
        desc="Tokenising",
    )
    if layout.kind != "whole":
        return rows
    chunks = rows.data.column("input_ids").chunks
    lengths = numpy.concatenate([chunk.value_lengths().to_numpy() for chunk in chunks])
    return rows.select(numpy.argsort(-lengths, kind="stable"), keep_in_memory=True)


def cut(texts: list[str], tokenizer: PreTrainedTokenizerBase, layout: Layout) -> Batch:
    """The rows of some documents, as `tokenise` would store them, except ``whole`` ones.

    Args:
        texts: The documents.
        tokenizer: The tokenizer to cut with.
        layout: How documents become rows: ``packed`` or ``padded``.

    Returns:
        Lists under the names of the columns that `tokenise` describes.
    """
    cut_texts, _ = _CUTS[layout.kind]
    batch = {"text": texts}
    return cut_texts(batch, tokenizer=tokenizer, frame=frame_of(tokenizer), layout=layout)


def windows(length: int, block_size: int, overlap: int) -> Iterator[tuple[int, int, int]]:
    """Cut ``length`` tokens into windows in which every token but the first is a target once.

    Args:
        length: Tokens of the sequence, its start token included.
        block_size: Tokens of a window at most.
        overlap: Tokens that a window repeats from the one before, below ``block_size``.

    Yields:
        First token, end, and how many leading tokens of the window are context alone.

    Example:
        >>> list(windows(8, block_size=4, overlap=2))
        [(0, 4, 1), (2, 6, 2), (4, 8, 2)]
    """
    stop = min(block_size, length)
    yield 0, stop, 1
    while stop < length:
        start = stop - overlap
        stop = min(start + block_size, length)
        yield start, stop, overlap


def _cut_packed(
    batch: Batch, tokenizer: PreTrainedTokenizerBase, frame: Frame, layout: Layout
) -> Batch:
    first = [frame.start] if frame.starts_documents else []
    encoded = encode_batch(tokenizer, batch["text"])
    return {"input_ids": [[*first, *ids, frame.end] for ids in encoded]}


def _cut_padded(
    batch: Batch, tokenizer: PreTrainedTokenizerBase, frame: Frame, layout: Layout
) -> Batch:
    rows: Batch = {"input_ids": [], "num_context": []}
    for text_ids in encode_batch(tokenizer, batch["text"]):
        ids = [frame.start, *text_ids, frame.end]
        for start, stop, num_context in windows(len(ids), layout.block_size, layout.overlap):
            rows["input_ids"].append(ids[start:stop])
            rows["num_context"].append(num_context)
    return rows


def _cut_whole(
    batch: Batch,
    documents: list[int],
    tokenizer: PreTrainedTokenizerBase,
    frame: Frame,
    layout: Layout,
) -> Batch:
    rows: Batch = {"input_ids": [], "num_context": [], "num_bytes": [], "document": []}
    texts = batch["text"]
    encoded = encode_batch(tokenizer, texts)
    for document, text, text_ids in zip(documents, texts, encoded, strict=True):
        ids = [frame.start, *text_ids]
        for start, stop, num_context in windows(len(ids), layout.block_size, layout.overlap):
            rows["input_ids"].append(ids[start:stop])
            rows["num_context"].append(num_context)
            rows["num_bytes"].append(len(text.encode()) if start == 0 else 0)
            rows["document"].append(document)
    return rows


_COLUMNS = {
    "input_ids": datasets.List(datasets.Value("int32")),
    "num_context": datasets.Value("int32"),
    "num_bytes": datasets.Value("int64"),
    "document": datasets.Value("int64"),
}
_CUTS: dict[str, tuple[Callable[..., Batch], tuple[str, ...]]] = {
    "packed": (_cut_packed, ("input_ids",)),
    "padded": (_cut_padded, ("input_ids", "num_context")),
    "whole": (_cut_whole, ("input_ids", "num_context", "num_bytes", "document")),
}
