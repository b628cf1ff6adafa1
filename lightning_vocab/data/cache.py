"""Tokenised rows on disk, known by everything that they depend on."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from lightning.fabric.utilities import rank_zero_info
from transformers import PreTrainedTokenizerBase

from lightning_vocab.data.documents import Documents, identify_documents, read_documents
from lightning_vocab.data.sources import TextSource
from lightning_vocab.data.tokenise import Layout, frame_of, tokenise

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
    """

    folder: Path
    num_proc: int = 1

    @property
    def text_folder(self) -> str:
        """Where `datasets` keeps its copy of the text."""
        return str(self.folder / "text")

    def read(self, source: TextSource) -> Documents:
        """The documents of ``source``."""
        return read_documents(source, self.text_folder)

    def key(self, *identity: Any) -> str:
        """A short name for plain values, such as a tokenizer's fingerprint or a layout."""
        text = json.dumps([_FORMAT, *identity], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def identify(self, source: TextSource) -> dict[str, Any]:
        """Plain values that change when the text of ``source`` changes."""
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
        documents = self.read(source)
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


def write_whole(place: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` make a file or folder beside ``place`` and rename it there.

    Where another process was faster, its result stays.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}."))
    try:
        write(beside / place.name)
        if not place.exists():
            (beside / place.name).rename(place)
    except OSError:
        if not place.exists():
            raise
    finally:
        shutil.rmtree(beside)


@functools.cache
def _say_once(message: str) -> None:
    """Text is cut by two tokenizers and read for several uses; one remark is enough."""
    rank_zero_info(message)


def cache_folder(cache_dir: str | None) -> Path:
    """The folder that ``cache_dir`` names, or ``lightning_vocab`` in the cache of `datasets`."""
    if cache_dir is None:
        return Path(datasets.config.HF_DATASETS_CACHE) / "lightning_vocab"
    return Path(cache_dir).expanduser()
