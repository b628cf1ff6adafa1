"""What `lightning-vocab fertility` measures: tokenizers, texts, words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import regex
from transformers import PreTrainedTokenizerBase

from lightning_vocab.commands.texts import parse_texts
from lightning_vocab.data.documents import Documents, read_documents
from lightning_vocab.data.sources import as_sources
from lightning_vocab.demo import resolve_base
from lightning_vocab.vocabulary.expansion import NewToken
from lightning_vocab.vocabulary.folder import MANIFEST_NAME, load_expansion, load_tokenizer
from lightning_vocab.vocabulary.measuring.parity import check_aligned
from lightning_vocab.vocabulary.measuring.text_size import SplitWords

_NO_LIMIT = 10**9  # transformers writes 1e30 where a tokenizer has no limit


@dataclass(frozen=True)
class Subject:
    """A tokenizer to be measured.

    Args:
        path: Where it came from.
        tokenizer: The tokenizer.
        new_tokens: Its new tokens, if it is an expansion folder.
        context_length: Tokens that its model reads at once, if that is known.
    """

    path: str
    tokenizer: PreTrainedTokenizerBase
    new_tokens: tuple[NewToken, ...]
    context_length: int | None


def find_splitter(pattern: str | None, function: str | None) -> SplitWords | None:
    """The word splitter that a pattern or a function's name asks for; None where neither does.

    Args:
        pattern: Regular expression that matches a word.
        function: ``module:function``.

    Raises:
        ValueError: If both are given, or the one given is of no use.
    """
    if pattern is not None and function is not None:
        raise ValueError("Expected --word_pattern or --word_splitter, got both.")
    if pattern is not None:
        try:
            compiled = regex.compile(pattern)
        except regex.error as error:
            raise ValueError(f"--word_pattern {pattern!r} is no expression: {error}.") from error
        return lambda text: [match[0] for match in compiled.finditer(text)]
    if function is None:
        return None
    module, _, name = function.partition(":")
    try:
        found: SplitWords = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"Expected --word_splitter as module:function that can be imported, got {function!r}: "
            f"{error}."
        ) from error
    return found


def find_documents(text: list[str], aligned: list[str]) -> tuple[dict[str, Documents], list[str]]:
    """The documents of every text by name, and the names of those that are aligned.

    Args:
        text: Texts as `parse_texts` takes them.
        aligned: Texts of which row ``i`` says the same in every one.

    Raises:
        ValueError: If there is no text or only one aligned text, two texts share a name, or aligned
            texts have blank rows or different numbers of rows.
    """
    sources, rows = parse_texts(text), parse_texts(aligned)
    if not sources and not rows:
        raise ValueError("Expected a text to measure on: give --text or --aligned.")
    if len(rows) == 1:
        raise ValueError(f"Expected at least two --aligned texts, got only {next(iter(rows))!r}.")
    if twice := sources.keys() & rows.keys():
        raise ValueError(f"Texts and aligned texts share the name {min(twice)!r}: rename one.")
    documents = {
        name: read_documents(as_sources(source, "train")[0])
        for name, source in (sources | rows).items()
    }
    for name in rows:
        if documents[name].num_blank:
            raise ValueError(
                f"The aligned text {name!r} has {documents[name].num_blank} blank rows among "
                f"{len(documents[name]) + documents[name].num_blank}: take these rows out of every "
                "aligned text, so that rows stay translations of each other."
            )
    check_aligned({name: len(documents[name]) for name in rows})
    return documents, list(rows)


def find_subjects(paths: list[str], context_length: int | None) -> dict[str, Subject]:
    """The tokenizers, named by their folders, or by their paths where folders are named alike.

    Args:
        paths: Folders, hub ids, or ``demo``.
        context_length: Tokens of a context; None for what each tokenizer names.

    Raises:
        ValueError: If a tokenizer is given twice, or one cannot be read.
    """
    names = [Path(path).name or path for path in paths]
    if len(set(names)) < len(names):
        names = paths
    if len(set(names)) < len(names):
        raise ValueError(f"Expected each tokenizer once, got {' '.join(paths)}.")
    return {name: _subject(path, context_length) for name, path in zip(names, paths, strict=True)}


def _subject(path: str, context_length: int | None) -> Subject:
    folder = Path(resolve_base(path)).expanduser()
    tokens: tuple[NewToken, ...] = ()
    if (folder / MANIFEST_NAME).is_file():
        expanded = load_expansion(folder)
        tokenizer, tokens = expanded.tokenizer, expanded.expansion.tokens
    else:
        tokenizer = load_tokenizer(resolve_base(path))
    return Subject(path, tokenizer, tokens, context_length or _context_length(folder, tokenizer))


def _context_length(folder: Path, tokenizer: PreTrainedTokenizerBase) -> int | None:
    config = folder / "config.json"
    values = json.loads(config.read_text("utf-8")) if config.is_file() else {}
    named = [tokenizer.model_max_length, values.get("max_position_embeddings")]
    return min((int(each) for each in named if each and each < _NO_LIMIT), default=None)
