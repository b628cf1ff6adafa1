"""Build the expansion folder of a run, or make sure that the one that stands there is meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig
from transformers.utils.hub import cached_file

from lightning_vocab.data.cache import KnownTokenizer
from lightning_vocab.vocabulary.expansion import ExpandedTokenizer
from lightning_vocab.vocabulary.extender import Extender
from lightning_vocab.vocabulary.fingerprint import fingerprint
from lightning_vocab.vocabulary.folder import (
    MANIFEST_NAME,
    check_base,
    load_expansion,
    load_tokenizer,
    save_expansion,
)


@dataclass(frozen=True)
class Tokenizers:
    """The tokenizers of a run.

    Args:
        base: The base tokenizer.
        grown: The one to train with: the grown tokenizer, or the base without an expansion.
        expanded: The grown tokenizer with its manifest, if there is an expansion.
    """

    base: KnownTokenizer
    grown: KnownTokenizer
    expanded: ExpandedTokenizer | None


def load_tokenizers(base: str, expansion_dir: str | None) -> Tokenizers:
    """The base tokenizer, and the grown one if there is an expansion folder.

    Args:
        base: A Hugging Face folder or a hub id.
        expansion_dir: The expansion folder.

    Raises:
        FileNotFoundError: If the folder does not exist or is no expansion folder.
        ValueError: If the expansion was built for another base.
    """
    tokenizer = load_tokenizer(base)
    known = KnownTokenizer(tokenizer, fingerprint(tokenizer))
    if expansion_dir is None:
        return Tokenizers(known, known, None)
    expanded = load_expansion(expansion_dir)
    check_base(expanded.expansion, tokenizer)
    grown = KnownTokenizer(expanded.tokenizer, expanded.expansion.tokenizer_fingerprint)
    return Tokenizers(known, grown, expanded)


def grow(
    extender: Extender,
    base: str,
    expansion_dir: str,
    texts: Callable[[], Iterable[str]],
    *,
    overwrite: bool = False,
) -> None:
    """Build the expansion folder, unless it holds what ``extender`` makes of this base.

    A folder counts as the same by base, extender and settings; the text that it was grown on is
    not compared.

    Args:
        extender: Grows the tokenizer.
        base: A Hugging Face folder or a hub id.
        expansion_dir: The expansion folder.
        texts: Gives the documents to grow on; not called where the folder stands.
        overwrite: Whether an expansion of another base or extender is replaced.

    Raises:
        ValueError: If the folder holds another expansion, and ``overwrite`` is False.
        FileExistsError: If the folder holds something else.
    """
    base_tokenizer = load_tokenizer(base)
    if _holds_expansion(expansion_dir):
        found = load_expansion(expansion_dir).expansion
        try:
            check_base(found, base_tokenizer)
            is_meant = extender.has_built(found)
            problem = f"expected {extender.description()}, found {dict(found.extender)}"
        except ValueError as error:
            is_meant, problem = False, str(error)
        if is_meant:
            return
        if not overwrite:
            raise ValueError(
                f"{expansion_dir!r} holds another expansion: {problem}. Choose another "
                "expansion_dir, leave the extender out to use the folder as it is, or set "
                "overwrite_expansion to replace it."
            )
    expanded = extender.extend(base_tokenizer, texts(), base_rows=base_rows(base))
    try:
        save_expansion(expanded, expansion_dir, overwrite=overwrite)
    except FileExistsError:
        # On a shared file system, another node may have built the same folder meanwhile.
        if not _holds_expansion(expansion_dir):
            raise
        if load_expansion(expansion_dir).expansion != expanded.expansion:
            raise


def base_rows(base: str) -> int | None:
    """Height of the base model's embedding, or None where ``base`` is a tokenizer alone."""
    if cached_file(base, "config.json", _raise_exceptions_for_missing_entries=False) is None:
        return None
    config = AutoConfig.from_pretrained(base).get_text_config()
    return int(config.vocab_size)


def _holds_expansion(folder: str) -> bool:
    return (Path(folder).expanduser() / MANIFEST_NAME).is_file()
