"""The expansion folder: a plain tokenizer folder with `vocab_expansion.json` beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from lightning_vocab.vocabulary.collector import collector_paused
from lightning_vocab.vocabulary.expansion import ExpandedTokenizer, VocabularyExpansion
from lightning_vocab.vocabulary.fingerprint import backend, fingerprint
from lightning_vocab.vocabulary.sentencepiece.model import read_model_file, write_beside
from lightning_vocab.vocabulary.whole_files import whole_folder

MANIFEST_NAME = "vocab_expansion.json"
"""Name of the manifest inside an expansion folder."""

REWRITE = (
    "A manifest is not to be edited: build the expansion again, or write a new manifest with "
    "describe_expansion."
)
"""What to do about a manifest that does not tell the truth."""

_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,  # a JSON list in the place of an object
    ImportError,
    RecursionError,  # JSON that is nested without end
)
"""What transformers raises for files that are missing or hold something else."""


def load_tokenizer(path: str | os.PathLike[str]) -> PreTrainedTokenizerBase:
    """The tokenizer of a local folder or a hub id, as `AutoTokenizer` reads it.

    Args:
        path: A folder that holds a tokenizer, or the id of a repository on the hub.

    Raises:
        FileNotFoundError: If the path is a file, or looks local and does not exist.
        ValueError: If no tokenizer can be read from it.
    """
    name = str(path)
    folder = Path(name or "no name").expanduser()
    if folder.is_file() or (not folder.is_dir() and _looks_local(name)):
        raise FileNotFoundError(
            f"Expected a folder with a tokenizer, but {name!r} is not a folder."
        )
    source = str(folder) if folder.is_dir() else name
    try:
        with _quiet_transformers(), collector_paused():
            tokenizer = AutoTokenizer.from_pretrained(source)
    except Exception as error:
        # For a tokenizer.json that is JSON but no tokenizer, the tokenizers library raises the bare
        # class, which no narrower clause catches.
        if type(error) is not Exception and not isinstance(error, _UNREADABLE):
            raise
        raise ValueError(
            f"No tokenizer could be read from {name!r}: expected a folder that AutoTokenizer "
            f"reads (tokenizer.json or tokenizer.model beside tokenizer_config.json). {error}"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ValueError(f"{name!r} holds a {type(tokenizer).__name__}, not a tokenizer.")
    return tokenizer


def save_expansion(
    expanded: ExpandedTokenizer, path: str | os.PathLike[str], *, overwrite: bool = False
) -> Path:
    """Write an expansion folder, whole or not at all.

    The folder is written beside its place and renamed into it, so a crash leaves no half folder
    and readers on other processes never see one. For a base with a SentencePiece file
    (``tokenizer.model``) the folder gets one, too; a warning says why where that cannot be.

    Args:
        expanded: The grown tokenizer with its manifest.
        path: Where the folder shall stand; its parents are made.
        overwrite: Whether an expansion folder that stands there is replaced. It is removed only
            after the new one is complete. A folder that is not an expansion is never replaced.

    Returns:
        The folder's path.

    Raises:
        FileExistsError: If something stands there and ``overwrite`` is False, or what stands there
            is not an expansion folder.
        ValueError: If tokenizer and manifest do not belong together.
    """
    target = Path(path).expanduser().absolute()
    _check_free(target, overwrite=overwrite)
    _check_fingerprint(expanded, "The tokenizer to be saved")
    _check_rows(expanded, "The manifest to be saved")
    manifest = expanded.expansion.to_json()
    with whole_folder(target) as fresh:
        expanded.tokenizer.save_pretrained(str(fresh))
        write_beside(expanded, fresh)
        (fresh / MANIFEST_NAME).write_text(manifest, encoding="utf-8")
    return target


def load_expansion(path: str | os.PathLike[str]) -> ExpandedTokenizer:
    """The tokenizer and manifest of an expansion folder, checked against each other.

    What only the base can tell, which tokens are new and what they are cut into, `check_base`
    checks.

    Args:
        path: An expansion folder.

    Raises:
        FileNotFoundError: If there is no such folder or it has no manifest.
        ValueError: If the manifest is broken, belongs to another tokenizer, lists a token under
            another id than the tokenizer, or counts other rows than the tokenizer needs.
    """
    manifest = Path(path).expanduser() / MANIFEST_NAME
    if not manifest.is_file():
        raise FileNotFoundError(
            f"{str(path)!r} is not an expansion folder: it has no {MANIFEST_NAME}. Build one with "
            "an extender and save_expansion, or describe a tokenizer of your own with "
            "describe_expansion."
        )
    try:
        expansion = VocabularyExpansion.from_json(manifest.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{manifest}: {error}") from error
    tokenizer = load_tokenizer(path)
    expanded = ExpandedTokenizer(tokenizer, expansion, read_model_file(tokenizer))
    _check_fingerprint(expanded, f"The tokenizer in {str(path)!r}")
    _check_rows(expanded, str(manifest))
    return expanded


def _check_fingerprint(expanded: ExpandedTokenizer, what: str) -> None:
    found = fingerprint(expanded.tokenizer)
    expected = expanded.expansion.tokenizer_fingerprint
    if found != expected:
        raise ValueError(
            f"{what} is not the one its manifest describes: expected fingerprint {expected[:12]}…, "
            f"got {found[:12]}…. It was changed after the manifest was made (tokens, special "
            "tokens or chat template): make the change on the base and build the expansion again, "
            "or write a new manifest with describe_expansion."
        )


def _check_rows(expanded: ExpandedTokenizer, what: str) -> None:
    ids: dict[str, int] = backend(expanded.tokenizer).get_vocab(with_added_tokens=True)
    expansion = expanded.expansion
    wrong = [token for token in expansion.tokens if ids.get(token.token) != token.id]
    if wrong:
        token, found = wrong[0], ids.get(wrong[0].token)
        has = "lacks that token" if found is None else f"gives it id {found}"
        raise ValueError(
            f"{what} does not fit its tokenizer in {len(wrong)} tokens: it lists {token.token!r} "
            f"as token {token.id}, the tokenizer {has}. {REWRITE}"
        )
    needed = max(expansion.base_rows, max(ids.values()) + 1)
    if expansion.num_rows != needed:
        raise ValueError(
            f"{what} does not fit its tokenizer: expected num_rows={needed} (the tokenizer's "
            f"highest id + 1, at least base_rows={expansion.base_rows}), got "
            f"{expansion.num_rows}. {REWRITE}"
        )


def _check_free(target: Path, *, overwrite: bool) -> None:
    if not os.path.lexists(target):
        return
    if target.is_dir() and not target.is_symlink():
        if not any(target.iterdir()):
            return
        if not (target / MANIFEST_NAME).is_file():
            raise FileExistsError(
                f"{target} exists and is not an expansion folder (no {MANIFEST_NAME}): it is never "
                "replaced. Choose another path."
            )
        if weights := [*target.glob("config.json"), *target.glob("*.safetensors")]:
            raise FileExistsError(
                f"{target} holds a model ({weights[0].name}) beside its expansion: it is never "
                "replaced by a tokenizer alone. Choose another path."
            )
        if overwrite:
            return
        raise FileExistsError(
            f"{target} already holds an expansion: pass overwrite=True to replace it, or choose "
            "another path."
        )
    raise FileExistsError(f"{target} exists and is not a folder: choose another path.")


def _looks_local(name: str) -> bool:
    """Hub ids are ``name`` or ``owner/name``; everything else can only be a path."""
    is_path = name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1
    return is_path or "\\" in name or not name


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep the library's remarks on loading out of the user's log; errors still rise."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
