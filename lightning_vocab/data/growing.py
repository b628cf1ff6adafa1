"""Build the expansion folder of a run, or make sure that the one that stands there is meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from lightning_vocab.data.cache import KnownTokenizer
from lightning_vocab.data.grown_on import note_text, other_text
from lightning_vocab.data.sources import TextSource
from lightning_vocab.data.tokenise import frame_of
from lightning_vocab.vocabulary.base_check import check_base, is_grown_base
from lightning_vocab.vocabulary.expansion import ExpandedTokenizer
from lightning_vocab.vocabulary.extender import Extender
from lightning_vocab.vocabulary.fingerprint import fingerprint
from lightning_vocab.vocabulary.folder import (
    MANIFEST_NAME,
    load_expansion,
    load_tokenizer,
    save_expansion,
)


@dataclass(frozen=True)
class Tokenizers:
    """The tokenizers of a run.

    Args:
        base: The base tokenizer; the grown one where the base has grown already.
        grown: The one to train with: the grown tokenizer, or the base without an expansion.
        expanded: The grown tokenizer with its manifest, if there is an expansion.
    """

    base: KnownTokenizer
    grown: KnownTokenizer
    expanded: ExpandedTokenizer | None


def load_tokenizers(
    base: str, expansion_dir: str | None, *, block_size: int | None = None
) -> Tokenizers:
    """The base tokenizer, and the grown one if there is an expansion folder.

    Args:
        base: A Hugging Face folder or a hub id.
        expansion_dir: The expansion folder.
        block_size: Tokens of a row, which the base must be able to take; None asks nothing.

    Raises:
        FileNotFoundError: If the folder does not exist or is no expansion folder.
        ValueError: If the expansion was built for another base, or ``block_size`` is above the
            base's context.
    """
    tokenizer = _load_base(base, block_size)
    if expansion_dir is None:
        return _pair(tokenizer, None)
    expanded = load_expansion(expansion_dir)
    check_base(expanded, tokenizer)
    return _pair(tokenizer, expanded)


def grow(
    extender: Extender | None,
    base: str,
    expansion_dir: str | None,
    texts: Callable[[], Iterable[str]],
    *,
    sources: Sequence[TextSource] = (),
    block_size: int | None = None,
    overwrite: bool = False,
) -> Tokenizers:
    """Build the expansion folder, unless it holds what ``extender`` makes of this base; read it.

    A folder counts as the same by base, extender, settings and, where the extender read text, by
    the names, sizes and options of the sources (see `other_text`). A folder that says nothing of
    its text is taken as it is.

    Args:
        extender: Grows the tokenizer; None reads the folder that stands, as `load_tokenizers`.
        base: A Hugging Face folder or a hub id.
        expansion_dir: The expansion folder; without an extender it may be None.
        texts: Gives the documents to grow on; not called where the folder stands.
        sources: Where ``texts`` come from.
        block_size: Tokens of a row, which the base must be able to take; None asks nothing.
        overwrite: Whether an expansion of another base, extender or text is replaced.

    Raises:
        ValueError: If the folder holds another expansion and ``overwrite`` is False, if
            ``block_size`` is above the base's context, or if the base has no end token.
        FileExistsError: If the folder holds something else.
    """
    if extender is None or expansion_dir is None:
        return load_tokenizers(base, expansion_dir, block_size=block_size)
    base_tokenizer = _load_base(base, block_size)
    standing = _standing(extender, base_tokenizer, expansion_dir, sources, overwrite=overwrite)
    if standing is not None:
        return _pair(base_tokenizer, standing)
    frame_of(base_tokenizer)  # complains before the work, not after it
    expanded, has_read = _extend(extender, base_tokenizer, texts, base_rows(base))
    _save(expanded, expansion_dir, overwrite=overwrite)
    if has_read:
        note_text(expansion_dir, sources)
    return _pair(base_tokenizer, load_expansion(expansion_dir))


def base_rows(base: str) -> int | None:
    """Height of the base model's embedding, or None where ``base`` is a tokenizer alone."""
    config = _text_config(base)
    return None if config is None else int(config.vocab_size)


def check_block_size(base: str, block_size: int) -> None:
    """Make sure that the base is a model that can take rows of ``block_size`` tokens.

    A base that is a tokenizer alone, or whose config names no greatest position, takes any.

    Args:
        base: A Hugging Face folder or a hub id.
        block_size: Tokens of a row.

    Raises:
        ValueError: If ``block_size`` is above the ``max_position_embeddings`` of the base, or the
            base is no causal language model.
    """
    config = _text_config(base)
    if config is not None and config.is_encoder_decoder:
        raise ValueError(
            f"{base!r} is an encoder-decoder ({config.model_type}): expected a causal language "
            "model."
        )
    context = getattr(config, "max_position_embeddings", None)
    if context is not None and 0 < context < block_size:
        raise ValueError(
            f"Expected a block_size of at most {context}, the context of {base!r} "
            f"(max_position_embeddings in its config), got {block_size}."
        )


def _load_base(base: str, block_size: int | None) -> PreTrainedTokenizerBase:
    tokenizer = load_tokenizer(base)
    if block_size is not None:
        check_block_size(base, block_size)
    return tokenizer


def _text_config(base: str) -> PreTrainedConfig | None:
    folder = Path(base).expanduser()
    source = str(folder) if folder.is_dir() else base
    if cached_file(source, "config.json", _raise_exceptions_for_missing_entries=False) is None:
        return None
    config: PreTrainedConfig = AutoConfig.from_pretrained(source).get_text_config()
    return config


def _extend(
    extender: Extender,
    tokenizer: PreTrainedTokenizerBase,
    texts: Callable[[], Iterable[str]],
    rows: int | None,
) -> tuple[ExpandedTokenizer, bool]:
    """The expansion, and whether the extender looked at the text at all."""
    has_read = False

    def watched(documents: Iterable[str]) -> Iterator[str]:
        nonlocal has_read
        has_read = True
        yield from documents

    expanded = extender.extend(tokenizer, watched(texts()), base_rows=rows)
    return expanded, has_read


def _standing(
    extender: Extender,
    base_tokenizer: PreTrainedTokenizerBase,
    expansion_dir: str,
    sources: Sequence[TextSource],
    *,
    overwrite: bool,
) -> ExpandedTokenizer | None:
    """The expansion that stands, if it is the wanted one; None where one is to be built."""
    if not _holds_expansion(expansion_dir):
        return None
    found = load_expansion(expansion_dir)
    problem = _problem(extender, found, base_tokenizer)
    problem = problem or other_text(expansion_dir, sources)
    if problem is None:
        return found
    if overwrite:
        return None
    raise ValueError(
        f"{expansion_dir!r} holds another expansion: {problem}. Choose another folder, leave the "
        "extender out to use this one, or set overwrite_expansion to replace it."
    )


def _save(expanded: ExpandedTokenizer, expansion_dir: str, *, overwrite: bool) -> None:
    try:
        save_expansion(expanded, expansion_dir, overwrite=overwrite)
    except FileExistsError:
        # On a shared file system, another node may have built the same folder meanwhile.
        stands = _holds_expansion(expansion_dir)
        if not stands or load_expansion(expansion_dir).expansion != expanded.expansion:
            raise


def _holds_expansion(folder: str) -> bool:
    return (Path(folder).expanduser() / MANIFEST_NAME).is_file()


def _pair(base: PreTrainedTokenizerBase, expanded: ExpandedTokenizer | None) -> Tokenizers:
    if expanded is None:
        known = KnownTokenizer(base, fingerprint(base))
        return Tokenizers(known, known, None)
    manifest = expanded.expansion
    grown = KnownTokenizer(expanded.tokenizer, manifest.tokenizer_fingerprint)
    if is_grown_base(expanded, base):
        return Tokenizers(grown, grown, expanded)
    return Tokenizers(KnownTokenizer(base, manifest.base_fingerprint), grown, expanded)


def _problem(
    extender: Extender, found: ExpandedTokenizer, base: PreTrainedTokenizerBase
) -> str | None:
    """What an expansion is other than ``extender`` would make it, or None."""
    try:
        check_base(found, base)
    except ValueError as error:
        return str(error).rstrip(".")
    if extender.has_built(found.expansion):
        return None
    return f"expected {extender.description()}, found {dict(found.expansion.extender)}"
