"""What a checkpoint says of its vocabulary, and whether it is that of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_vocab.vocabulary import VocabularyExpansion

MANIFEST_KEY = "vocab_expansion"
"""Entry of a checkpoint that holds the manifest of its vocabulary."""

OPTIONS_KEY = "optimizer_options"
"""Entry of a checkpoint that holds what its run gave to each parameter group."""


def refuse_other_vocabulary(
    checkpoint: Mapping[str, Any], ours: VocabularyExpansion | None, multiple: int | None
) -> None:
    """Accept a checkpoint of the same vocabulary and the same number of rows.

    Args:
        checkpoint: A loaded checkpoint.
        ours: The manifest of this run, or None without an expansion.
        multiple: The ``pad_to_multiple_of`` of this run.

    Raises:
        ValueError: If the checkpoint has another vocabulary, or rows padded otherwise.
    """
    manifest = checkpoint.get(MANIFEST_KEY)
    theirs = None if manifest is None else VocabularyExpansion.from_json(manifest)
    if _identity(theirs) != _identity(ours):
        raise ValueError(
            f"The checkpoint was written with {_in_words(theirs)}, this run has "
            f"{_in_words(ours)}: set expansion_dir to the folder that the checkpoint was "
            "trained with."
        )
    saved = checkpoint.get("hyper_parameters", {}).get("pad_to_multiple_of", multiple)
    if ours is not None and saved != multiple:
        raise ValueError(
            f"The checkpoint was written with pad_to_multiple_of={saved}, this run has {multiple}, "
            "so their rows do not fit: keep the former value."
        )


def _identity(expansion: VocabularyExpansion | None) -> tuple[object, ...] | None:
    if expansion is None:
        return None
    return expansion.base_fingerprint, expansion.tokenizer_fingerprint, expansion.new_ids


def _in_words(expansion: VocabularyExpansion | None) -> str:
    if expansion is None:
        return "the base's own vocabulary"
    return (
        f"{len(expansion.tokens)} new tokens on {expansion.base_len} "
        f"(tokenizer {expansion.tokenizer_fingerprint[:12]})"
    )
