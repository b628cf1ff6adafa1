"""Where tokens are named that look like slots: what is named must keep its id and its spelling."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from lightning_vocab.vocabulary.backend_state import BackendState

_CONFIGS = ("config.json", "generation_config.json")


class SlotUses:
    """Says of a possible slot by what it is named already.

    Looked through: the chat template and the tokens that chats may not hold, the special-token map
    and every other ``…_token`` setting, the post-processor, the merges, and the ``…_token_id``
    settings of the model's config and generation config, if they stand beside the tokenizer.

    Args:
        base: State of the base tokenizer.
        tokens: Spellings that will be asked about.
    """

    def __init__(self, base: BackendState, tokens: Sequence[str]) -> None:
        tokenizer = base.tokenizer
        self._texts = {
            "the chat template": _template(tokenizer),
            "the post-processor": json.dumps(base.data["post_processor"], ensure_ascii=False),
        }
        control = getattr(tokenizer, "chat_control_tokens", None) or ()
        self._names = {
            "the special-token map": set(tokenizer.special_tokens_map.values()),
            "the tokenizer's settings": set(_settings(tokenizer)) | set(map(str, control)),
            "the merges": _in_merges(base, tokens),
        }
        self._ids = dict(_config_ids(tokenizer.name_or_path))

    def of(self, id: int, token: str | None) -> str | None:
        """What names the slot, or None if nothing does.

        Args:
            id: The slot.
            token: Its spelling, None for a padded row.
        """
        if token is not None:
            for where, names in self._names.items():
                if token in names:
                    return where
            for where, text in self._texts.items():
                if token in text:
                    return where
        return self._ids.get(id)


def _template(tokenizer: PreTrainedTokenizerBase) -> str:
    """All chat templates in one text; a tokenizer may have several, by name."""
    template = tokenizer.chat_template
    return "\n".join(template.values()) if isinstance(template, dict) else template or ""


def _settings(tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    for name, value in tokenizer.init_kwargs.items():
        if name.endswith("_token") and value is not None:
            yield str(value)


def _in_merges(base: BackendState, tokens: Iterable[str]) -> set[str]:
    """The tokens that merges join or lead to: the base's merges stay, so these must stay."""
    asked = set(tokens).intersection(base.model["vocab"] if _has_merges(base) else ())
    if not asked:
        return set()
    return asked.intersection(
        part for left, right in base.model["merges"] for part in (left, right, left + right)
    )


def _has_merges(base: BackendState) -> bool:
    return bool(base.model.get("merges"))


def _config_ids(name: str) -> Iterator[tuple[int, str]]:
    """Ids that the configs beside the tokenizer name, with the place."""
    for file in _CONFIGS:
        place = _file(name, file)
        if place is None:
            continue
        for key, value in _token_ids(json.loads(Path(place).read_text(encoding="utf-8"))):
            yield value, f"{key} in {file}"


def _file(name: str, file: str) -> str | None:
    """A file of the base, if it lies on this machine; a tokenizer made in memory has none."""
    if not name:
        return None
    try:
        found: str | None = cached_file(
            name, file, local_files_only=True, _raise_exceptions_for_missing_entries=False
        )
    except OSError:  # a folder that is gone, or a hub id of which nothing was ever fetched
        return None
    return found


def _token_ids(config: Any) -> Iterator[tuple[str, int]]:
    """Every ``…_token_id`` of a config and of the configs inside it; one may be a list of ids."""
    if not isinstance(config, dict):
        return
    for key, value in config.items():
        if re.search(r"_token_(id|index)s?$", key):
            ids = value if isinstance(value, list) else [value]
            yield from ((key, i) for i in ids if type(i) is int)
        else:
            yield from _token_ids(value)
