"""Word vectors in files: the text form ``.vec`` and the binary form of fastText."""

from __future__ import annotations

import gzip
import struct
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
TEXT_SUFFIXES = (".vec", ".vec.gz", ".txt")
_BLOCK_LINES = 20_000


@dataclass(frozen=True, eq=False)
class WordVectors:
    """Words with their vectors, in the order of their file: frequent words first.

    Args:
        words: The words, each once.
        vectors: Their vectors, ``(num_words, width)``, in float32.
        keyed: gensim's ``FastTextKeyedVectors``, which also has vectors of unseen words from their
            n-grams; None where there are no n-grams.
    """

    words: Sequence[str]
    vectors: Floats
    keyed: Any = None

    def of(self, names: Sequence[str | None]) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Vectors of names ``(num_names, width)``, and which of them are there and not zero.

        Args:
            names: Words; None is never there.
        """
        if self.keyed is not None:
            every = self.keyed.vectors_for_all(sorted({name for name in names if name is not None}))
            return WordVectors(every.index_to_key, every.vectors).of(names)
        place = {word: number for number, word in enumerate(self.words)}
        at = np.array([-1 if name is None else place.get(name, -1) for name in names], np.int64)
        found = np.zeros((len(names), self.vectors.shape[1]), np.float32)
        found[at >= 0] = self.vectors[at[at >= 0]]
        return found, np.any(found, axis=1, keepdims=True)[:, 0]


def check_vectors_file(path: str) -> None:
    """Complain about a file that is not there or is of unknown kind.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If its suffix is unknown.
    """
    if not path.endswith((*TEXT_SUFFIXES, ".bin")):
        raise ValueError(
            f"Expected word vectors as .vec, .vec.gz, .txt or fastText's .bin, got {path!r}."
        )
    if not Path(path).expanduser().is_file():
        raise FileNotFoundError(f"There is no file of word vectors {path!r}.")


def read_vec(
    path: str, wanted: Collection[str] | None = None, max_words: int | None = None
) -> WordVectors:
    """The vectors of a text file: a line ``words width``, then a word and its numbers each line.

    Every line is counted and its width checked; only the numbers of words that are wanted are read.
    Of a word that comes twice the first line counts.

    Memory: the words that are kept, ``4 * width`` bytes each, and 20,000 lines.

    Args:
        path: A ``.vec``, ``.vec.gz`` or ``.txt`` file in UTF-8.
        wanted: Words to keep; None keeps all.
        max_words: Lines to read, from the beginning. The rest is not checked.

    Raises:
        ValueError: If the first line is not as above, a line has another width or no number, a
            number is not finite, or the file ends before the lines that its first line promises.
    """
    opened = cast(Any, gzip.open if path.endswith(".gz") else open)
    with opened(Path(path).expanduser(), "rb") as lines:
        promised, width = _header(lines.readline(), path)
        expected = promised if max_words is None else min(promised, max_words)
        names = None if wanted is None else {name.encode() for name in wanted}
        words: dict[bytes, None] = {}
        blocks = []
        for first, block in _blocks(lines, expected, path):
            kept = [line for line in block if _is_kept(line[0], names, words)]
            _check_widths(block, width, first, path)
            blocks.append(_numbers(kept, width, path))
    vectors = np.concatenate([np.zeros((0, width), np.float32), *blocks])
    return WordVectors([word.decode(errors="replace") for word in words], vectors)


def _header(line: bytes, path: str) -> tuple[int, int]:
    parts = line.split()
    if len(parts) == 2 and parts[0].isdigit() and parts[1].isdigit() and int(parts[1]):
        return int(parts[0]), int(parts[1])
    raise ValueError(
        f"Expected the number of words and their width in the first line of {path!r}, got "
        f"{line[:80]!r}."
    )


_Line = tuple[bytes, bytes]


def _blocks(lines: IO[bytes], expected: int, path: str) -> Iterator[tuple[int, list[_Line]]]:
    """Lines as word and rest, many at a time, with the first one's number in the file."""
    done = 0
    while done < expected:
        raw = list(islice(lines, min(_BLOCK_LINES, expected - done)))
        if not raw:
            raise ValueError(
                f"{path!r} is cut short: its first line promises more than the {done} words that "
                f"it has (expected {expected}). Get the whole file."
            )
        parts = (line.rstrip().partition(b" ") for line in raw)
        yield done + 2, [(word, rest) for word, _, rest in parts]
        done += len(raw)


def _is_kept(word: bytes, wanted: set[bytes] | None, words: dict[bytes, None]) -> bool:
    if word in words or (wanted is not None and word not in wanted):
        return False
    words[word] = None
    return True


def _check_widths(block: Sequence[_Line], width: int, first: int, path: str) -> None:
    spaces = np.fromiter((rest.count(b" ") for _, rest in block), np.int64, len(block))
    wrong = np.flatnonzero(spaces != width - 1)
    if len(wrong):
        number = int(wrong[0])
        raise ValueError(
            f"Expected {width} numbers in every line of {path!r}, as its first line says, got "
            f"{len(block[number][1].split())} in line {first + number}: the file is cut short, or "
            "is of another width."
        )


def _numbers(block: Sequence[_Line], width: int, path: str) -> Floats:
    if not block:
        return np.zeros((0, width), np.float32)
    text = b" ".join(rest for _, rest in block).decode("latin-1")
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # older numpy only warns of bad text
        try:
            numbers = np.fromstring(text, np.float32, sep=" ")
        except (DeprecationWarning, ValueError) as error:
            raise ValueError(f"A line of {path!r} holds something else than numbers.") from error
    vectors = numbers.reshape(len(block), width)
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        word = block[int(bad[0])][0].decode(errors="replace")
        raise ValueError(
            f"Expected finite numbers in {path!r}: {len(bad)} words have others, such as {word!r}."
        )
    return vectors


def fasttext_library() -> Any:
    """The module ``gensim.models.fasttext``.

    Raises:
        ImportError: If gensim is not installed.
    """
    try:
        from gensim.models import fasttext
    except ImportError as error:
        raise ImportError(
            "Training fastText vectors or reading a .bin file needs gensim: "
            "pip install 'lightning-vocab[spaces]'."
        ) from error
    return fasttext


def read_bin(path: str) -> WordVectors:
    """The vectors of a fastText model with its n-grams.

    Memory: the whole file.

    Args:
        path: A ``.bin`` file as fastText writes it.

    Raises:
        ImportError: If gensim is not installed.
        ValueError: If the file is cut short or something else.
    """
    library = fasttext_library()
    try:
        keyed = library.load_facebook_vectors(str(Path(path).expanduser()))
    except (EOFError, ValueError, AssertionError, NotImplementedError, struct.error) as error:
        raise ValueError(
            f"{path!r} is cut short or no model of fastText ({error}): get the whole file."
        ) from error
    return WordVectors(keyed.index_to_key, np.asarray(keyed.vectors, np.float32), keyed)
