"""The manifest of a grown tokenizer, computed from the difference between it and its base."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from lightning_vocab.vocabulary.backend_state import BackendState, read_state
from lightning_vocab.vocabulary.collector import collector_paused
from lightning_vocab.vocabulary.expansion import (
    ExpandedTokenizer,
    NewToken,
    TokenKind,
    VocabularyExpansion,
)
from lightning_vocab.vocabulary.fingerprint import backend, without_limits
from lightning_vocab.vocabulary.guarantees import check_guarantees
from lightning_vocab.vocabulary.sentencepiece.model import read_model_file
from lightning_vocab.vocabulary.slots.uses import NAMED_IDS, ids_in_configs

_PACKAGES = ("lightning-vocab", "tokenizers", "transformers")


def describe_expansion(
    base: PreTrainedTokenizerBase,
    grown: PreTrainedTokenizerBase,
    *,
    base_rows: int | None = None,
    kinds: Mapping[int, TokenKind] | None = None,
    extender: Mapping[str, Any] | None = None,
) -> ExpandedTokenizer:
    """Describe a tokenizer that was grown from ``base``, here or elsewhere, and check it.

    Checked: class, special-token map and chat template; normalizer, pre-tokenizer, decoder and the
    model's flags; ids of all old tokens, and settings of the added ones among them; that the old
    merges come first and in their order, or, of a Unigram base, that the old scores stay but for
    one tiny amount that all are lowered by; and, of each new token that is not an added one, that
    its own string is cut into just that token.

    Not checked, as it depends on the text: that no text gets more tokens, and that every text is
    decoded as by the base. For BPE both follow from what is checked, as far as the new tokens are
    reached by merges: merges are only appended. They do not follow for added tokens, which are
    matched inside words before anything else (see `AddTokens`), nor for tokenizers of another kind
    than BPE. The post-processor (which special tokens frame a text) is not compared.

    Args:
        base: The tokenizer before it grew.
        grown: The tokenizer after it grew.
        base_rows: Height of the base model's embedding matrix, ``len(base)`` if not given.
        kinds: Kinds of ids whose kind cannot be told from the tokenizers: reused slots, which must
            be named here to be allowed to change.
        extender: How the tokenizer was grown, in plain JSON values.

    Raises:
        TypeError: If a tokenizer does not run on the tokenizers library.
        ValueError: If nothing is new, ``base_rows`` is too small, or the grown tokenizer breaks a
            guarantee: an old id moved, a merge was removed or reordered, a new token can never be
            produced, the text pipeline, special-token map, chat template or class changed.
    """
    return describe_states(
        read_state(base),
        read_state(grown),
        base_rows=base_rows,
        kinds=kinds or {},
        extender=extender or {},
    )


def describe_states(
    base: BackendState,
    grown: BackendState,
    *,
    base_rows: int | None,
    kinds: Mapping[int, TokenKind],
    extender: Mapping[str, Any],
) -> ExpandedTokenizer:
    """`describe_expansion` for callers that have parsed the tokenizers already.

    Args:
        base: State of the base tokenizer.
        grown: State of the grown tokenizer.
        base_rows: Height of the base model's embedding matrix, or None.
        kinds: Kinds of ids that cannot be told from the tokenizers.
        extender: How the tokenizer was grown.

    Raises:
        ValueError: As `describe_expansion`.
    """
    rows = rows_of_base(base, base_rows)
    # The saved folder has no config, and a later growth must not take these ids for slots.
    named = ids_in_configs(base.tokenizer)
    with collector_paused(), without_limits(backend(base.tokenizer)):
        new = _new_tokens(base, grown, kinds)
        check_guarantees(base, grown, new, slots={i for i in kinds if kinds[i] == "slot"})
        tokens = _described(base, grown, new, kinds)
    expansion = VocabularyExpansion(
        base_len=len(base.tokenizer),
        base_rows=rows,
        num_rows=max(rows, grown.num_ids),
        tokens=tokens,
        base_fingerprint=base.fingerprint,
        tokenizer_fingerprint=grown.fingerprint,
        extender={**extender, **({NAMED_IDS: named} if named else {})},
        created_with=dict(_versions()),
    )
    return ExpandedTokenizer(grown.tokenizer, expansion, read_model_file(base.tokenizer))


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in _PACKAGES}  # each reads a file of the package


def rows_of_base(base: BackendState, base_rows: int | None) -> int:
    """Height of the base model's matrix, by default just enough for every base id.

    Args:
        base: State of the base tokenizer.
        base_rows: The height if it is known.

    Raises:
        ValueError: If it has no room for every base id.
    """
    needed = max(len(base.tokenizer), base.num_ids)
    if base_rows is not None and base_rows < needed:
        raise ValueError(
            f"base_rows={base_rows} is too small: the base tokenizer needs {needed} rows. Pass the "
            "height of the base model's embedding matrix."
        )
    return needed if base_rows is None else base_rows


def _new_tokens(
    base: BackendState, grown: BackendState, kinds: Mapping[int, TokenKind]
) -> dict[int, str]:
    """Id and string of every token that the base does not have, ascending by id."""
    new = sorted((i, token) for token, i in grown.ids.items() if token not in base.ids)
    if not new:
        raise ValueError(
            f"The grown tokenizer has no token that its base ({len(base.ids)} tokens) lacks."
        )
    if stray := sorted(set(kinds) - {i for i, _ in new}):
        raise ValueError(f"Kinds are given for ids that are not new: {stray[:5]}.")
    return dict(new)


def _described(
    base: BackendState, grown: BackendState, new: Mapping[int, str], kinds: Mapping[int, TokenKind]
) -> tuple[NewToken, ...]:
    added = {item["id"] for item in grown.added_tokens}
    old, grown_backend = backend(base.tokenizer), backend(grown.tokenizer)
    tokens = []
    for i, token in new.items():
        kind: TokenKind = kinds.get(i, "special" if i in added else "text")
        surface = token if i in added else _surface(grown_backend, token)
        if i not in added:
            # A surface may not say what the token is: U+FFFD, or a blank that a decoder drops.
            pieces = [piece.id for piece in old.model.tokenize(token)]
        else:
            pieces = old.encode(surface, add_special_tokens=False).ids
        if not pieces:
            raise ValueError(
                f"The base tokenizer cuts new token {i} ({token!r}) into nothing, so its rows have "
                "nothing to start from: give it a surface that the base can read."
            )
        tokens.append(NewToken(i, token, surface, kind, tuple(pieces)))
    return tuple(tokens)


def _surface(tokenizer: Tokenizer, token: str) -> str:
    """Text of a token inside a text: decoders treat the first token of a text in their own way."""
    if tokenizer.decoder is None:
        return token
    anchored: str = tokenizer.decoder.decode(["a", token])
    return anchored.removeprefix("a")
