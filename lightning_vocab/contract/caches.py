"""Item 15: cached data and the manifest carry the fingerprint of this tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets

from lightning_vocab.contract.finding import Check, Finding
from lightning_vocab.contract.subject import Subject
from lightning_vocab.vocabulary.wording import counted, some

CACHE = Check(15, "cached data")
MANIFEST = Check(15, "manifest")
NOTE = "source.json"
"""What a folder of cached rows says of itself."""

_DOCUMENTS = 256  # looked at, from the beginning


def check_cache(subject: Subject) -> Iterator[Finding]:
    """Item 15: the cache holds rows of this tokenizer, and the manifest is this tokenizer's."""
    yield from _manifest(subject)
    cache = subject.inputs.cache
    if cache is None:
        yield CACHE.skipped("no cache was named", "give the cache folder of the training data")
    elif isinstance(cache, Mapping):
        yield _sources(cache)
    else:
        yield _folder(subject, Path(cache))


def _sources(cache: Mapping[str, bool]) -> Finding:
    """Every source of a run must have its rows."""
    missing = [name for name, is_there in cache.items() if not is_there]
    if missing:
        return CACHE.failed(
            f"{len(missing)} of {len(cache)} sources have no rows of this tokenizer: "
            f"{some(missing)}",
            "tokenise the text with this tokenizer: give data and model the same expansion_dir",
        )
    return CACHE.passed(f"rows cut with this tokenizer: {counted(len(cache), 'source')}")


def _folder(subject: Subject, folder: Path) -> Finding:
    """A cache may hold rows of several tokenizers; one source of this one must be there."""
    places = cached_places(folder)
    if not places:
        return CACHE.failed(
            f"{folder} holds no tokenised rows (no {NOTE})",
            "name the cache_dir of the run, or one folder in it",
        )
    found = {place: carries(place, subject.checked.state.fingerprint) for place in places}
    known = [place.name for place, says in found.items() if says]
    other = [place.name for place, says in found.items() if says is False]
    silent = [place.name for place, says in found.items() if says is None]
    told = subject.checked.state.fingerprint[:12]
    if known:
        return CACHE.passed(
            f"{len(known)} of {len(places)} tokenised sources were cut with this tokenizer "
            f"({told}…), {len(other)} with another one"
        )
    if silent:
        return CACHE.warned(
            f"{len(silent)} of {len(places)} tokenised sources do not say which tokenizer cut "
            f"them: {some(silent)}",
            "tokenise the text again if in doubt",
        )
    return CACHE.failed(
        f"none of {len(places)} tokenised sources was cut with this tokenizer ({told}…): "
        f"{some(other)}",
        "tokenise the text again with this tokenizer: ids of another one mean other words",
    )


def cached_places(folder: Path) -> list[Path]:
    """The folders of cached rows: ``folder`` itself, or those right under it.

    Args:
        folder: A cache folder, or one folder of rows in it.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"Expected a cache folder, but {str(folder)!r} is not a folder.")
    candidates = [folder, *sorted(folder.iterdir())]
    return [place for place in candidates if (place / NOTE).is_file()]


def carries(place: Path, fingerprint: str) -> bool | None:
    """Whether a folder of rows was cut with the tokenizer of this fingerprint; None if unsaid.

    Args:
        place: A folder of cached rows.
        fingerprint: The tokenizer's fingerprint.

    Raises:
        ValueError: If the note is damaged.
    """
    try:
        note: dict[str, Any] = json.loads((place / NOTE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{place / NOTE} is damaged: {error}. Remove its folder.") from error
    told = note.get("tokenizer_fingerprint")
    return None if told is None else bool(told == fingerprint)


def cached_documents(subject: Subject) -> list[list[int]]:
    """The first documents that were cut to be trained on with this tokenizer.

    Args:
        subject: What is checked; its inputs name the cache.
    """
    cache, documents = subject.inputs.cache, []
    if cache is None or isinstance(cache, Mapping):
        return []
    for place in cached_places(Path(cache)):
        if not carries(place, subject.checked.state.fingerprint):
            continue
        rows = datasets.load_from_disk(str(place))
        if "num_bytes" not in rows.column_names:  # such rows are scored, never trained on
            head = rows.select(range(min(_DOCUMENTS, len(rows))))
            documents += [list(ids) for ids in head["input_ids"]]
    return documents


def _manifest(subject: Subject) -> Iterator[Finding]:
    if subject.expansion is None:
        return
    expected = subject.expansion.tokenizer_fingerprint
    found = subject.checked.state.fingerprint
    base = subject.base
    if base is not None and base.state.fingerprint != subject.expansion.base_fingerprint:
        yield MANIFEST.warned(
            f"the manifest was made for another base ({subject.expansion.base_fingerprint[:12]}…) "
            f"than the one given ({base.state.fingerprint[:12]}…)",
            "give the base that the vocabulary was grown from",
        )
    if found == expected:
        yield MANIFEST.passed(f"the manifest describes this tokenizer ({found[:12]}…)")
        return
    yield MANIFEST.warned(
        f"the tokenizer ({found[:12]}…) was changed after its manifest was made ({expected[:12]}…)",
        "write a new manifest with describe_expansion, or take the tokenizer that it describes",
    )
