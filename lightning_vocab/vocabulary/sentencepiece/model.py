"""A grown tokenizer as the ``tokenizer.model`` that `sentencepiece` itself reads."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from pathlib import Path

from sentencepiece import SentencePieceProcessor
from transformers import PreTrainedTokenizerBase

from lightning_vocab.vocabulary.expansion import ExpandedTokenizer
from lightning_vocab.vocabulary.fingerprint import backend, without_limits
from lightning_vocab.vocabulary.sentencepiece.pieces import NoSentencePieceError, add_pieces
from lightning_vocab.vocabulary.sentencepiece.proto import forget_samples, parse_model
from lightning_vocab.vocabulary.whole_files import whole_file


def model_name(tokenizer: PreTrainedTokenizerBase) -> str:
    """Name of the SentencePiece file in a folder of this tokenizer's class.

    Args:
        tokenizer: The tokenizer.
    """
    name = type(tokenizer).vocab_files_names.get("vocab_file", "")
    return name if name.endswith(".model") else "tokenizer.model"


def read_model_file(tokenizer: PreTrainedTokenizerBase) -> bytes | None:
    """Content of the SentencePiece file that a tokenizer was loaded beside, None without one.

    Args:
        tokenizer: The tokenizer.
    """
    file = Path(getattr(tokenizer, "vocab_file", None) or "")
    return file.read_bytes() if file.suffix == ".model" and file.is_file() else None


def write_sentencepiece(
    expanded: ExpandedTokenizer, path: str | os.PathLike[str], *, overwrite: bool = False
) -> Path:
    """Write a grown tokenizer as a SentencePiece file; `grown_model` says what stands in it.

    The file is written beside its place and renamed into it: it is whole or not there.

    Args:
        expanded: The grown tokenizer with its manifest.
        path: The file to write; its folder must exist.
        overwrite: Whether a file that stands there is replaced.

    Returns:
        The file's path.

    Raises:
        FileExistsError: If a file stands there and ``overwrite`` is False, or a folder does.
        FileNotFoundError: If there is no folder for it.
        NoSentencePieceError: If the tokenizer cannot be written as a SentencePiece model; the
            message says why.
    """
    target = Path(path).expanduser().absolute()
    _check_place(target, overwrite=overwrite)
    content = grown_model(expanded)
    with whole_file(target) as fresh:
        fresh.write_bytes(content)
    return target


def _check_place(target: Path, *, overwrite: bool) -> None:
    if not target.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {target.parent}: make it, or choose another.")
    if target.is_dir():
        raise FileExistsError(f"{target} is a folder: give the path of the file to write.")
    if os.path.lexists(target) and not overwrite:
        raise FileExistsError(
            f"{target} exists: pass overwrite=True to replace it, or choose another path."
        )


def write_beside(expanded: ExpandedTokenizer, folder: Path) -> None:
    """Write the SentencePiece file into a tokenizer's folder, if the base has one.

    Hugging Face loads a folder from its ``tokenizer.json``; the file is for everything else. So a
    tokenizer that SentencePiece cannot follow is no error here: a warning says why there is none.

    Args:
        expanded: The grown tokenizer with its manifest.
        folder: The folder.
    """
    if expanded.sentencepiece is None:
        return
    name = model_name(expanded.tokenizer)
    try:
        # The tokenizer's own saving may have put the base's file there.
        write_sentencepiece(expanded, folder / name, overwrite=True)
    except NoSentencePieceError as error:
        warnings.warn(f"No {name} is written beside tokenizer.json. {error}", stacklevel=3)


def grown_model(expanded: ExpandedTokenizer) -> bytes:
    """The grown tokenizer as a SentencePiece model, for a base that has one.

    Old pieces stay at their ids with their types and scores. New BPE tokens follow with scores
    below every old one, in order of their merges; new Unigram tokens have their own scores, where
    single precision holds those. Added tokens are control symbols if they are special, else
    user-defined; ids without a token are unused pieces.

    SentencePiece joins any two pieces whose string is a token, where the Hugging Face tokenizer has
    one merge for each new token. The two are the same: neighbours in a segmentation are cut as they
    are when they stand alone, so the only neighbours that spell a token are the parts of its merge,
    as long as merges are listed behind those of their parts. That is checked. Where the base itself
    differs from its file (Hugging Face and SentencePiece treat runs of blanks differently), the
    grown tokenizers differ, too. Protocol tokens are found in text by Hugging Face tokenizers; a
    control symbol is not, and in front of a user-defined one SentencePiece may put a blank.

    Args:
        expanded: The grown tokenizer with its manifest.

    Raises:
        NoSentencePieceError: If the base has no SentencePiece file, the file is cut short or not
            the base's, the new merges are none that SentencePiece would follow, or SentencePiece
            cuts a new token's text otherwise.
    """
    if expanded.sentencepiece is None:
        raise NoSentencePieceError(
            "The base tokenizer was not loaded beside a SentencePiece file, so there is none to be "
            "continued. Use a base folder that has its tokenizer.model, or tokenizer.json alone."
        )
    try:
        proto = parse_model(expanded.sentencepiece, model_name(expanded.tokenizer))
    except ValueError as error:
        raise NoSentencePieceError(f"The base's file cannot be continued. {error}") from error
    written = add_pieces(proto, expanded.tokenizer, frozenset(expanded.expansion.new_ids))
    proto.trainer_spec.vocab_size = len(proto.pieces)
    forget_samples(proto)
    content: bytes = proto.SerializeToString()
    _check_surfaces(content, expanded, written)
    return content


def _check_surfaces(content: bytes, expanded: ExpandedTokenizer, written: Collection[int]) -> None:
    """Compare the two tokenizers on the text of each new text token.

    Where they differ in the base's pieces as well, the base differs from its file.
    """
    processor = SentencePieceProcessor(model_proto=content)
    tokens = expanded.expansion.tokens
    texts = [token.surface.strip() for token in tokens if token.id in written]
    tokenizer = backend(expanded.tokenizer)
    with without_limits(tokenizer):
        encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    pieces = {token.id: token.pieces for token in tokens}
    for text, encoding, found in zip(texts, encodings, processor.encode(texts), strict=True):
        expected = encoding.ids
        if expected != found and _spelled(expected, pieces) == _spelled(found, pieces):
            raise NoSentencePieceError(
                f"SentencePiece cuts {text!r} into {found}, the tokenizer into {expected}: the "
                "file would be another tokenizer."
            )


def _spelled(ids: Sequence[int], pieces: Mapping[int, Sequence[int]]) -> list[int]:
    """The ids with the base's pieces in the place of each new one."""
    return list(chain.from_iterable(pieces.get(i, (i,)) for i in ids))
