"""Tokenised rows on disk, known by everything that they depend on."""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from lightning.fabric.utilities import rank_zero_info
from transformers import PreTrainedTokenizerBase

from lightning_vocab.data.documents import Documents, identify_documents, read_documents
from lightning_vocab.data.shards import StreamedDocuments, identify_stream
from lightning_vocab.data.sources import TextSource
from lightning_vocab.data.tokenise import Layout, frame_of, tokenise
from lightning_vocab.vocabulary.whole_files import write_whole

_FORMAT = 2
"""Raised when rows come out differently for the same source, tokenizer and layout."""


@dataclass(frozen=True)
class KnownTokenizer:
    """A tokenizer and the fingerprint under which its rows are kept."""

    tokenizer: PreTrainedTokenizerBase
    fingerprint: str


@dataclass(frozen=True)
class RowCache:
    """Tokenised rows under one folder, a subfolder for each source, tokenizer and layout.

    A subfolder is written beside its place and renamed into it: it is whole or not there, and two
    nodes that write to one file system do not disturb each other.

    Args:
        folder: Where the rows are kept; made on the first write.
        num_proc: Processes that tokenise.
        streamed: Sources that are read as they stand, of which no copy and no rows are kept.
    """

    folder: Path
    num_proc: int = 1
    streamed: frozenset[TextSource] = frozenset()

    @property
    def text_folder(self) -> str:
        """Where `datasets` keeps its copy of the text."""
        return str(self.folder / "text")

    def read(self, source: TextSource) -> Documents | StreamedDocuments:
        """The documents of ``source``."""
        if source in self.streamed:
            return StreamedDocuments(source)
        return read_documents(source, self.text_folder)

    def check(self, source: TextSource) -> None:
        """Read ``source`` once, of a streamed one the first document, to say what is wrong."""
        if source in self.streamed:
            StreamedDocuments(source).check()
        else:
            read_documents(source, self.text_folder)

    def key(self, *identity: Any) -> str:
        """A short name for plain values, such as a tokenizer's fingerprint or a layout."""
        text = json.dumps([_FORMAT, *identity], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def identify(self, source: TextSource) -> dict[str, Any]:
        """Plain values that change when the text of ``source`` changes."""
        if source in self.streamed:
            return identify_stream(source)
        return identify_documents(source, self.text_folder)

    def holds(self, source: TextSource, known: KnownTokenizer, layout: Layout) -> bool:
        """Whether the rows are there.

        Args:
            source: The source.
            known: The tokenizer to cut with.
            layout: How documents become rows.
        """
        return self._place(source, known, layout).exists()

    def prepare(self, source: TextSource, known: KnownTokenizer, layout: Layout) -> None:
        """Tokenise ``source``, unless its rows are there.

        Args:
            source: The source.
            known: The tokenizer to cut with.
            layout: How documents become rows.
        """
        place = self._place(source, known, layout)
        if not place.exists():
            write_whole(place, functools.partial(self._write, source, known, layout))

    def load(self, source: TextSource, known: KnownTokenizer, layout: Layout) -> datasets.Dataset:
        """The rows that `prepare` wrote, mapped into memory.

        Raises:
            FileNotFoundError: If they are not there.
        """
        place = self._place(source, known, layout)
        if not place.exists():
            raise FileNotFoundError(
                f"No tokenised rows of {source.path!r} in {self.folder}: expected {place.name}. "
                "Call prepare_data() first (the Trainer does), on each node where cache_dir is not "
                "shared, and leave the text alone while a run starts."
            )
        return datasets.load_from_disk(str(place))

    def _place(self, source: TextSource, known: KnownTokenizer, layout: Layout) -> Path:
        return self.folder / self.key(self.identify(source), known.fingerprint, layout.identity())

    def _write(
        self,
        source: TextSource,
        known: KnownTokenizer,
        layout: Layout,
        place: Path,
    ) -> None:
        frame_of(known.tokenizer)  # complains before any text is read
        documents = read_documents(source, self.text_folder)
        if documents.num_blank:
            _say_once(f"Blank documents of {source.path!r} left out: {documents.num_blank}.")
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".rows") as scratch:
            rows = tokenise(
                documents, known.tokenizer, layout, num_proc=self.num_proc, scratch=Path(scratch)
            )
            rows.save_to_disk(str(place))
        counts = {
            "source": self.identify(source),
            "tokenizer_fingerprint": known.fingerprint,
            "num_documents": len(documents),
            "num_blank_documents_left_out": documents.num_blank,
        }
        told = json.dumps(counts, indent=2, ensure_ascii=False)
        (place / "source.json").write_text(told, encoding="utf-8")


@functools.cache
def _say_once(message: str) -> None:
    """Text is cut by two tokenizers and read for several uses; one remark is enough."""
    rank_zero_info(message)


def cache_folder(cache_dir: str | None) -> Path:
    """The folder that ``cache_dir`` names, or ``lightning_vocab`` in the cache of `datasets`."""
    if cache_dir is None:
        return Path(datasets.config.HF_DATASETS_CACHE) / "lightning_vocab"
    return Path(cache_dir).expanduser()
