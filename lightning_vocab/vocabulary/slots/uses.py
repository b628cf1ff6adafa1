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
from lightning_vocab.vocabulary.folder import MANIFEST_NAME
from lightning_vocab.vocabulary.plain_json import read_object

_CONFIGS = ("config.json", "generation_config.json")

NAMED_IDS = "named_ids"
"""Where a manifest's ``extender`` field keeps what `ids_in_configs` found beside the base."""


class SlotUses:
    """Says of a possible slot by what it is named already.

    Looked through: the chat template and the tokens that chats may not hold, the special-token map
    and every other ``…_token`` setting, the post-processor, the merges, and the ``…_token_id``
    settings of the model's config and generation config, if they stand beside the tokenizer, or
    stood beside the base that it was grown from, as the manifest of an expansion folder says.

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
        named = ids_in_configs(tokenizer)
        self._ids = {i: where for where, ids in named.items() for i in ids}

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


def ids_in_configs(tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """The ids that model configs name, by the setting and its file.

    An expansion folder has no ``config.json``, so that no loader takes it for a model; what the
    configs beside the base name stands in its manifest instead.

    Args:
        tokenizer: The tokenizer; one that was made in memory has no configs.

    Raises:
        ValueError: If the ids in the manifest beside it are not lists of whole numbers by setting.
    """
    named = _manifest_ids(tokenizer.name_or_path)
    for i, where in _config_ids(tokenizer.name_or_path):
        ids = named.setdefault(where, [])
        if i not in ids:
            ids.append(i)
    return named


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


def _manifest_ids(name: str) -> dict[str, list[int]]:
    """What the configs beside the base named, if an expansion folder was loaded."""
    place = _file(name, MANIFEST_NAME)
    if place is None:
        return {}
    extender = read_object(Path(place).read_text(encoding="utf-8")).get("extender")
    named: Any = extender.get(NAMED_IDS, {}) if isinstance(extender, dict) else {}
    if not isinstance(named, dict) or not all(map(_are_ids, named.values())):
        raise ValueError(
            f"{place}: expected lists of ids by setting under {NAMED_IDS!r} of 'extender', got "
            f"{str(named)[:80]!r}. A manifest is not to be edited: build the expansion again."
        )
    return {where: list(ids) for where, ids in named.items()}


def _are_ids(ids: Any) -> bool:
    return isinstance(ids, list) and all(type(i) is int for i in ids)


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
