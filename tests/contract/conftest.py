from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from lightning_vocab.contract import load_folder, load_manifest
from tests.contract.cases import LANGUAGES, Case, make_batch, write_base, write_cache, write_grown


@pytest.fixture(scope="session")
def made() -> dict[str, dict[str, Any]]:
    """What `shipped` has made, by kind: pytest itself forgets it whenever the kind changes."""
    return {}


@pytest.fixture(scope="session", params=["tied", "untied"])
def shipped(
    request: pytest.FixtureRequest,
    made: dict[str, dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """Folders of a base and of its grown model, the first values of the new rows, and a cache."""
    if request.param not in made:
        made[request.param] = _shipped(tmp_path_factory.mktemp("shipped"), request.param)
    return made[request.param]


def _shipped(place: Path, kind: str) -> dict[str, Any]:
    base = write_base(place / "base", tied=kind == "tied")
    initial_rows = write_grown(base, place / "grown")
    cache = write_cache(place / "cache", load_folder(place / "grown").tokenizer)
    loaded = load_folder(place / "grown", weights=True)
    return {
        "base": base,
        "grown": place / "grown",
        "initial_rows": initial_rows,
        "cache": cache,
        "loaded": loaded,
        "base_loaded": load_folder(base),
        "expansion": load_manifest(place / "grown"),
    }


@pytest.fixture
def clean(shipped: dict[str, Any]) -> Case:
    """A case in which nothing fails; a test may change all of it."""
    loaded = shipped["loaded"]
    tokenizer = copy.deepcopy(loaded.tokenizer)
    return Case(
        model=copy.deepcopy(loaded.model),
        tokenizer=tokenizer,
        expansion=shipped["expansion"],
        base=shipped["base_loaded"],
        inputs={
            "batch": make_batch(tokenizer),
            "texts": LANGUAGES,
            "divisible_by": [64],
            "initial_rows": shipped["initial_rows"],
            "cache": shipped["cache"],
            "stop_strings": ["<|im_end|>"],
            "protocol_tokens": ["<|im_start|>"],
            "old_rows": "unchanged",
            "memory_gib": 1.0,
            "min_context_bytes": 64,
        },
    )


@pytest.fixture
def folder(shipped: dict[str, Any]) -> Path:
    grown: Path = shipped["grown"]
    return grown
