"""A backend tokenizer as the JSON it is made of, and a new tokenizer from edited JSON."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from lightning_vocab.vocabulary.collector import collector_paused
from lightning_vocab.vocabulary.fingerprint import backend, canonical_text, fingerprint_of
from lightning_vocab.vocabulary.folder import load_tokenizer


@dataclass(frozen=True)
class BackendState:
    """One tokenizer, its backend's canonical text and the same text parsed.

    Args:
        tokenizer: The tokenizer.
        text: The backend's JSON without truncation and padding.
        data: ``text`` parsed. Read-only by convention: an edit works on copies of what it changes.
    """

    tokenizer: PreTrainedTokenizerBase
    text: str
    data: dict[str, Any]

    @property
    def model(self) -> dict[str, Any]:
        """The ``model`` part: vocabulary, merges and flags."""
        found: dict[str, Any] = self.data["model"]
        return found

    @property
    def added_tokens(self) -> list[dict[str, Any]]:
        """The tokens that are matched before everything else, in order of id."""
        found: list[dict[str, Any]] = self.data["added_tokens"]
        return found

    @cached_property
    def ids(self) -> dict[str, int]:
        """Every token, added ones included, with its id."""
        vocab = self.model["vocab"]
        # A Unigram vocabulary is a list of (token, score) in order of id, all others are mappings.
        if isinstance(vocab, list):
            vocab = {token: i for i, (token, _) in enumerate(vocab)}
        return {**vocab, **{item["content"]: item["id"] for item in self.added_tokens}}

    @cached_property
    def num_ids(self) -> int:
        """The highest id plus one."""
        return max(self.ids.values()) + 1

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the tokenizer."""
        return fingerprint_of(self.text, self.tokenizer)


def read_state(tokenizer: PreTrainedTokenizerBase) -> BackendState:
    """The state of a tokenizer's backend.

    Args:
        tokenizer: A tokenizer that runs on the tokenizers library.

    Raises:
        TypeError: If the tokenizer has no such backend.
    """
    text = canonical_text(backend(tokenizer))
    with collector_paused():
        return BackendState(tokenizer, text, json.loads(text))


def reload_with(base: PreTrainedTokenizerBase, text: str | None = None) -> PreTrainedTokenizerBase:
    """What `AutoTokenizer` makes of ``base`` once it is saved, with another backend if given.

    Several classes rebuild their backend when they load. A tokenizer that went through a folder is
    therefore the only one of which is known that users of the saved folder get the same.

    Args:
        base: The tokenizer that gives the class, the special tokens and the chat template.
        text: JSON of the backend that shall stand in the base's place.
    """
    with tempfile.TemporaryDirectory(prefix="lightning_vocab_") as folder, collector_paused():
        base.save_pretrained(folder)
        if text is not None:
            # A tokenizer.model or vocab.json of the base would be stale beside the new backend.
            for name in type(base).vocab_files_names.values():
                (Path(folder) / name).unlink(missing_ok=True)
            (Path(folder) / "tokenizer.json").write_text(text, encoding="utf-8")
        grown = load_tokenizer(folder)
    grown.name_or_path = base.name_or_path
    grown.init_kwargs["name_or_path"] = base.name_or_path
    return grown
