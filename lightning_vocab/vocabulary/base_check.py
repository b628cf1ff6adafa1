"""Whether an expansion belongs to a base: its manifest must be what the two tokenizers give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields

from transformers import PreTrainedTokenizerBase

from lightning_vocab.vocabulary.backend_state import read_state
from lightning_vocab.vocabulary.describe import describe_states
from lightning_vocab.vocabulary.expansion import ExpandedTokenizer, NewToken, VocabularyExpansion
from lightning_vocab.vocabulary.fingerprint import fingerprint
from lightning_vocab.vocabulary.folder import REWRITE


def is_grown_base(expanded: ExpandedTokenizer, base_tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a base has grown already: its tokenizer is the grown one of this expansion.

    Such is the folder that a grounding run exports; its model has the new rows.

    Args:
        expanded: The grown tokenizer with its manifest.
        base_tokenizer: The tokenizer of the base model.
    """
    return fingerprint(base_tokenizer) == expanded.expansion.tokenizer_fingerprint


def check_base(expanded: ExpandedTokenizer, base_tokenizer: PreTrainedTokenizerBase) -> None:
    """Make sure that an expansion was built for this base, and that its manifest is true.

    The manifest is computed again from the two tokenizers and compared: a manifest written or
    edited by hand could otherwise give rows to the wrong tokens or start them from the wrong
    pieces. The guarantees that `describe_expansion` checks are checked again on the way. Of a base
    that has grown already (`is_grown_base`) there is no second tokenizer to compute it from; what
    `load_expansion` compares is all that can be told.

    Args:
        expanded: The grown tokenizer with its manifest.
        base_tokenizer: The tokenizer of the base model.

    Raises:
        ValueError: If the expansion was built for another base tokenizer, the grown tokenizer
            breaks a guarantee, or the manifest's tokens (ids, kinds, surfaces, pieces),
            ``base_len`` or ``num_rows`` are not those of the two tokenizers.
    """
    expansion, base = expanded.expansion, read_state(base_tokenizer)
    if base.fingerprint == expansion.tokenizer_fingerprint:
        return
    if base.fingerprint != expansion.base_fingerprint:
        raise ValueError(
            f"The expansion was built for another base tokenizer: expected fingerprint "
            f"{expansion.base_fingerprint[:12]}… ({expansion.base_len} tokens), got "
            f"{base.fingerprint[:12]}… ({len(base_tokenizer)} tokens). Use the base it was built "
            "for, a model that has grown by it already, or build the expansion again from this one."
        )
    # Only these kinds are somebody's word; that a token is reached by merges shows by itself.
    kinds = {token.id: token.kind for token in expansion.tokens if token.kind != "text"}
    try:
        true = describe_states(
            base,
            read_state(expanded.tokenizer),
            base_rows=expansion.base_rows,
            kinds=kinds,
            extender=expansion.extender,
        ).expansion
    except ValueError as error:
        raise ValueError(
            f"The expansion does not fit its base, the manifest or the tokenizer is wrong: {error}"
        ) from error
    if problem := next(_differences(expansion, true), None):
        raise ValueError(f"The manifest is not what its two tokenizers give: {problem}. {REWRITE}")


def _differences(found: VocabularyExpansion, true: VocabularyExpansion) -> Iterator[str]:
    for name in ("base_len", "num_rows"):
        if getattr(found, name) != getattr(true, name):
            yield f"expected {name}={getattr(true, name)}, got {getattr(found, name)}"
    listed, new = {token.id: token for token in found.tokens}, {t.id: t for t in true.tokens}
    if missing := new.keys() - listed.keys():
        yield f"it lacks {len(missing)} new tokens, such as {_named(new[i] for i in missing)}"
    if extra := listed.keys() - new.keys():
        yield (
            f"it lists {len(extra)} tokens that the base has already, such as "
            f"{_named(listed[i] for i in extra)}"
        )
    for i in sorted(new.keys() & listed.keys()):
        for name in (field.name for field in fields(NewToken)):
            expected, got = getattr(new[i], name), getattr(listed[i], name)
            if expected != got:
                yield f"for token {i} ({new[i].token!r}) expected {name} {expected!r}, got {got!r}"


def _named(tokens: Iterable[NewToken]) -> str:
    shown = sorted(f"{token.id} ({token.token!r})" for token in tokens)
    return ", ".join(shown[:5]) + (" …" if len(shown) > 5 else "")
