"""Vectors kept on disk under everything that they depend on."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from typing_extensions import override

from lightning_vocab.initializers.base import RowContext
from lightning_vocab.initializers.spaces.base import AuxiliarySpace, TokenVectors
from lightning_vocab.vocabulary.whole_files import whole_file

_FORMAT = 1


class SavedSpace(AuxiliarySpace):
    """A space whose vectors can be kept on disk.

    A file is known by the space with its arguments, by the fingerprints of both tokenizers, by the
    ids of the tokens, and by whatever else the space says it depends on. It is written beside its
    place and renamed into it, so it is whole or not there.

    Disk: ``4 * (num_new + num_old) * width`` bytes a file.

    Args:
        cache_dir: Folder of the files, made on the first write. None keeps nothing.
    """

    def __init__(self, cache_dir: str | None = None) -> None:
        self.cache_dir = cache_dir

    @abstractmethod
    def identity(self, context: RowContext) -> dict[str, Any]:
        """Plain values that change whenever the vectors of ``context``'s tokens do.

        Args:
            context: The base's rows, the new tokens and their pieces.
        """

    @abstractmethod
    def compute(self, context: RowContext) -> TokenVectors:
        """The vectors, made anew.

        Args:
            context: The base's rows, the new tokens and their pieces.
        """

    @override
    def vectors(self, context: RowContext) -> TokenVectors:
        """The vectors from disk if they are there, else made anew and kept."""
        if self.cache_dir is None:
            return self.compute(context)
        place = Path(self.cache_dir).expanduser() / f"{self._key(context)}.safetensors"
        if place.exists():
            return TokenVectors(**load_file(place))
        made = self.compute(context)
        _write(place, made)
        return made

    def _key(self, context: RowContext) -> str:
        expansion = context.expansion
        told = [
            *(_FORMAT, type(self).__name__, self.identity(context)),
            *(expansion.base_fingerprint, expansion.tokenizer_fingerprint),
            [[token.id, token.surface, *token.pieces] for token in expansion.tokens],
            context.base_ids.tolist(),
        ]
        text = json.dumps(told, sort_keys=True)
        return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


def file_identity(path: str) -> list[str | int]:
    """A file's place, size in bytes and time of its last change in nanoseconds.

    Raises:
        FileNotFoundError: If it is not there.
    """
    place = Path(path).expanduser().resolve()
    found = place.stat()
    return [str(place), found.st_size, found.st_mtime_ns]


def _write(place: Path, made: TokenVectors) -> None:
    tensors = {"new": made.new, "knows_new": made.knows_new}
    tensors |= {"old": made.old, "knows_old": made.knows_old}
    with whole_file(place) as fresh:
        save_file({name: value.contiguous() for name, value in tensors.items()}, fresh)
