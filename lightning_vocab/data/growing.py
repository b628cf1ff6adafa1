"""Build the expansion folder of a run, or make sure that the one that stands there is meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from lightning_vocab.data.cache import KnownTokenizer
from lightning_vocab.vocabulary.expansion import ExpandedTokenizer, VocabularyExpansion
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
    if expansion_dir is None:
        return _pair(tokenizer, None)
    expanded = load_expansion(expansion_dir)
    check_base(expanded.expansion, tokenizer)
    return _pair(tokenizer, expanded)


def grow(
    extender: Extender,
    base: str,
    expansion_dir: str,
    texts: Callable[[], Iterable[str]],
    *,
    overwrite: bool = False,
) -> Tokenizers:
    """Build the expansion folder, unless it holds what ``extender`` makes of this base; read it.

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
        found = load_expansion(expansion_dir)
        problem = _problem(extender, found.expansion, base_tokenizer)
        if problem is None:
            return _pair(base_tokenizer, found)
        if not overwrite:
            raise ValueError(
                f"{expansion_dir!r} holds another expansion: {problem}. Choose another folder, "
                "leave the extender out to use this one, or set overwrite_expansion to replace it."
            )
    expanded = extender.extend(base_tokenizer, texts(), base_rows=base_rows(base))
    try:
        save_expansion(expanded, expansion_dir, overwrite=overwrite)
    except FileExistsError:
        # On a shared file system, another node may have built the same folder meanwhile.
        stands = _holds_expansion(expansion_dir)
        if not stands or load_expansion(expansion_dir).expansion != expanded.expansion:
            raise
    return _pair(base_tokenizer, load_expansion(expansion_dir))


def base_rows(base: str) -> int | None:
    """Height of the base model's embedding, or None where ``base`` is a tokenizer alone."""
    if cached_file(base, "config.json", _raise_exceptions_for_missing_entries=False) is None:
        return None
    config = AutoConfig.from_pretrained(base).get_text_config()
    return int(config.vocab_size)


def _holds_expansion(folder: str) -> bool:
    return (Path(folder).expanduser() / MANIFEST_NAME).is_file()


def _pair(base: PreTrainedTokenizerBase, expanded: ExpandedTokenizer | None) -> Tokenizers:
    if expanded is None:
        known = KnownTokenizer(base, fingerprint(base))
        return Tokenizers(known, known, None)
    manifest = expanded.expansion
    return Tokenizers(
        KnownTokenizer(base, manifest.base_fingerprint),
        KnownTokenizer(expanded.tokenizer, manifest.tokenizer_fingerprint),
        expanded,
    )


def _problem(
    extender: Extender, found: VocabularyExpansion, base: PreTrainedTokenizerBase
) -> str | None:
    """What an expansion is other than ``extender`` would make it, or None."""
    try:
        check_base(found, base)
    except ValueError as error:
        return str(error).rstrip(".")
    if extender.has_built(found):
        return None
    return f"expected {extender.description()}, found {dict(found.extender)}"
