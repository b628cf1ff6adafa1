"""Protocol tokens: matched before everything else, wherever their text stands."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase
from typing_extensions import override

from lightning_vocab.vocabulary.added_text import bare_words, check_decoding, warn_about
from lightning_vocab.vocabulary.backend_state import BackendState, read_state, reload_with
from lightning_vocab.vocabulary.describe import describe_states, rows_of_base
from lightning_vocab.vocabulary.expansion import ExpandedTokenizer
from lightning_vocab.vocabulary.extender import Extender
from lightning_vocab.vocabulary.fingerprint import backend
from lightning_vocab.vocabulary.limits import check_switches


class AddTokens(Extender):
    """Adds protocol tokens such as ``<|tool|>`` or ``<item_17>`` behind every old id.

    They are matched in the raw text before anything else, inside words too. Use `ContinuedBPE` for
    words of a language or domain: a word added here would be cut out of longer words, and its blank
    in front would become a token of its own. With ``thei``, GPT-2 needs three tokens for `` their``
    instead of one.

    Text without an added token is cut and decoded as before. Text around one may get more tokens
    than before, unlike with `ContinuedBPE`; tokens that are plain words are warned of. Such text is
    decoded as by the base, except where the base's normalizer or pre-tokenizer puts a blank in
    front of every stretch of text: Phi-3 gives ``a<|tool|> b`` for ``a<|tool|>b``. No setting of an
    added token avoids this, so it is warned of, and the manifest's ``extender`` field lists the
    tokens under ``report``. A token whose own text would be lost is refused.

    Args:
        tokens: The texts of the tokens, in the order of their ids.
        special: Whether decoding with ``skip_special_tokens=True`` leaves the tokens out, as for
            control tokens.

    Raises:
        ValueError: If the list is empty or a token is empty, blank, or holds NUL or a lone
            surrogate.
        TypeError: If the tokens are not a list of strings, or ``special`` is no bool.

    Example:
        >>> from tests.conftest import make_tokenizer
        >>> grown = AddTokens(["<|tool|>", "<|result|>"]).extend(make_tokenizer())
        >>> grown.expansion.new_ids
        (300, 301)
        >>> grown.tokenizer.tokenize("t<|tool|>c")
        ['t', '<|tool|>', 'c']
    """

    def __init__(self, tokens: Sequence[str], special: bool = False) -> None:
        if isinstance(tokens, str) or not isinstance(tokens, Sequence):
            raise TypeError(f"Expected a list of tokens, got {type(tokens).__name__}.")
        if not tokens:
            raise ValueError("Expected at least one token to add, got an empty list.")
        for index, token in enumerate(tokens):
            _check_token(index, token)
        check_switches(special=special)
        self.tokens = list(tokens)
        self.special = special

    @override
    def arguments(self) -> dict[str, Any]:
        return {"tokens": list(self.tokens), "special": self.special}

    @override
    def extend(
        self,
        tokenizer: PreTrainedTokenizerBase,
        texts: Iterable[str] = (),
        *,
        base_rows: int | None = None,
    ) -> ExpandedTokenizer:
        """The tokenizer with the tokens added, and its manifest.

        Args:
            tokenizer: The base tokenizer.
            texts: Not read: the tokens are given.
            base_rows: Height of the base model's embedding matrix, ``len(tokenizer)`` if not given.

        Raises:
            ValueError: If every token exists already, one is spelled like another token of the
                vocabulary, or the base's decoder makes other text of one.
        """
        base = read_state(tokenizer)
        rows_of_base(base, base_rows)
        fresh, report = self._sorted_out(base)
        grown = reload_with(tokenizer)
        grown.add_tokens(
            [AddedToken(token, normalized=False, special=self.special) for token in fresh],
            special_tokens=self.special,
        )
        state = read_state(reload_with(grown))
        _check_ids(base, state, fresh)
        changed, words = check_decoding(base, state, fresh), bare_words(fresh)
        warn_about(changed, words, stacklevel=2)
        report |= {"decoded_otherwise": changed, "plain_words": words}
        extender = {**self.description(), "report": report}
        return describe_states(base, state, base_rows=base_rows, kinds={}, extender=extender)

    def _sorted_out(self, base: BackendState) -> tuple[list[str], dict[str, Any]]:
        """The tokens that are new, and what became of the others."""
        fresh = list(dict.fromkeys(self.tokens))
        duplicates = [token for token, count in Counter(self.tokens).items() if count > 1]
        known = [token for token in fresh if token in base.ids]
        for token in known:
            _check_meaning(base, token)
        fresh = [token for token in fresh if token not in base.ids]
        if not fresh:
            raise ValueError(
                f"Nothing to add: all {len(known)} tokens exist in the base already ({known[:5]})."
            )
        for what, listed in (("listed more than once", duplicates), ("in the base", known)):
            if listed:
                warnings.warn(
                    f"{len(listed)} tokens to add are already {what}: {listed}.", stacklevel=3
                )
        return fresh, {"duplicates": duplicates, "already_in_base": known}


def _check_token(index: int, token: object) -> None:
    if not isinstance(token, str):
        raise TypeError(f"Token {index} must be a string, got {type(token).__name__}: {token!r}.")
    if not token.strip():
        raise ValueError(f"Token {index} is {'blank' if token else 'empty'}: {token!r}.")
    if "\0" in token:
        raise ValueError(f"Token {index} holds NUL, which no text should hold: {token!r}.")
    if any("\ud800" <= char <= "\udfff" for char in token):
        raise ValueError(f"Token {index} holds a lone surrogate, which is no text: {token!r}.")


def _check_meaning(base: BackendState, token: str) -> None:
    """A byte-level vocabulary spells byte 0xE9 ``é``: its id must not become a protocol token."""
    i = base.ids[token]
    decoder = backend(base.tokenizer).decoder
    is_added = any(item["id"] == i for item in base.added_tokens)
    if is_added or decoder is None or decoder.decode(["a", token]) == "a" + token:
        return
    raise ValueError(
        f"{token!r} cannot be added: the base vocabulary spells token {i} that way, which stands "
        f"for other text ({decoder.decode(['a', token])[1:]!r}). Choose another text."
    )


def _check_ids(base: BackendState, grown: BackendState, fresh: Sequence[str]) -> None:
    expected = {token: base.num_ids + k for k, token in enumerate(fresh)}
    found = {token: grown.ids.get(token) for token in fresh}
    if found != expected:
        token = next(token for token in fresh if found[token] != expected[token])
        raise ValueError(
            f"The tokenizers library gave {token!r} id {found[token]} instead of "
            f"{expected[token]}: the base vocabulary has ids without a token before its end."
        )
