"""Protocol tokens in rows that the base has already: no matrix grows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase
from typing_extensions import override

from lightning_vocab.vocabulary.added import AddTokens
from lightning_vocab.vocabulary.added_text import bare_words, check_decoding, warn_about
from lightning_vocab.vocabulary.backend_state import BackendState, read_state
from lightning_vocab.vocabulary.describe import describe_states
from lightning_vocab.vocabulary.expansion import ExpandedTokenizer
from lightning_vocab.vocabulary.extender import Extender
from lightning_vocab.vocabulary.fingerprint import backend, without_limits
from lightning_vocab.vocabulary.slots.edit import rename_slots
from lightning_vocab.vocabulary.slots.patterns import check_slot_ids, check_slot_patterns
from lightning_vocab.vocabulary.slots.slots import Slot, take_slots
from lightning_vocab.vocabulary.slots.text import former_tokens

_MAX_CHARACTERS = 1000


class ReuseSlots(Extender):
    """Gives protocol tokens such as ``<|tool|>`` to rows that the base has and does not use.

    Slots are padded rows (Qwen 2.5 has 271 rows without a token) and reserved tokens (Llama 3 has
    248 ``<|reserved_special_token_N|>``). The model keeps its size, so that it is served and
    sharded as before. The first token takes the first slot, and so on: padded rows first, for no
    text changes when they get a token, then reserved ones; see `find_slots`, which also says what
    is never reused. A reserved token keeps its id and its settings (a special one stays special)
    and loses its old spelling, which is ordinary text from then on. The rows of all these ids are
    new rows: they are always initialised again, whatever stood in them.

    Text with neither a new token nor an old spelling is cut and decoded as before. The new tokens
    are matched like those of `AddTokens`, and the same is warned of and recorded. The old spellings
    stand in the manifest's ``extender`` field, under ``report``.

    Args:
        tokens: The texts of the tokens; each gets a slot, or an error says how many there are.
        special: Whether tokens in padded rows are special: left out when decoding with
            ``skip_special_tokens=True``.
        patterns: Which slots to take, in this order: spellings of reserved tokens in which ``*``
            stands for a number, such as ``<unused*>``, or ``padded``. If not given, all kinds that
            are known.
        ids: Ids of the slots to take, the first for the first token, and so on.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If the list is empty, or a token is empty, blank, longer than 1,000 characters,
            listed twice or holds NUL or a lone surrogate; or there are fewer ids than tokens.

    Example:
        >>> from tests.conftest import make_tokenizer
        >>> grown = ReuseSlots(["<|tool|>"]).extend(make_tokenizer(), base_rows=320)
        >>> [(token.id, token.kind) for token in grown.expansion.tokens], grown.expansion.num_rows
        ([(300, 'slot')], 320)
    """

    def __init__(
        self,
        tokens: Sequence[str],
        special: bool = True,
        patterns: Sequence[str] | None = None,
        ids: Sequence[int] | None = None,
    ) -> None:
        # What may be a protocol token there may be one here.
        self.tokens = AddTokens(tokens, special).tokens
        first: dict[str, int] = {}
        for index, token in enumerate(self.tokens):
            if len(token) > _MAX_CHARACTERS:
                raise ValueError(
                    f"Token {index} has {len(token)} characters, {token[:20]!r}…: a protocol token "
                    f"has {_MAX_CHARACTERS} at most."
                )
            if first.setdefault(token, index) != index:
                raise ValueError(f"Token {index} is token {first[token]} again: {token!r}.")
        self.special = special
        self.patterns = None if patterns is None else list(check_slot_patterns(patterns))
        self.ids = None if ids is None else list(check_slot_ids(ids))
        if self.ids is not None and len(self.ids) < len(self.tokens):
            raise ValueError(
                f"Expected an id for each of the {len(self.tokens)} tokens, got {len(self.ids)}."
            )

    @override
    def arguments(self) -> dict[str, Any]:
        return {
            "tokens": list(self.tokens),
            "special": self.special,
            "patterns": self.patterns,
            "ids": self.ids,
        }

    @override
    def extend(
        self,
        tokenizer: PreTrainedTokenizerBase,
        texts: Iterable[str] = (),
        *,
        base_rows: int | None = None,
    ) -> ExpandedTokenizer:
        """The tokenizer with the tokens in its slots, and its manifest.

        Args:
            tokenizer: The base tokenizer.
            texts: Not read: the tokens are given.
            base_rows: Height of the base model's embedding matrix; padded rows behind the last
                token are found only if it is given.

        Raises:
            ValueError: If there are too few slots, a listed id is not free, a token exists in the
                base or holds the spelling of a slot that is taken, two are one after the base's
                normalizer, or the base's decoder makes other text of one.
        """
        base = read_state(tokenizer)
        self._check_new(base)
        slots = take_slots(base, base_rows, len(self.tokens), patterns=self.patterns, ids=self.ids)
        self._check_apart(base, slots)
        grown = rename_slots(base, slots, self.tokens, special=self.special)
        changed = check_decoding(base, grown, self.tokens)
        words = bare_words(self.tokens)
        warn_about(changed, words, stacklevel=2)
        report = {
            **former_tokens(slots),
            "decoded_otherwise": changed,
            "plain_words": words,
        }
        return describe_states(
            base,
            grown,
            base_rows=base_rows,
            kinds={slot.id: "slot" for slot in slots},
            extender={**self.description(), "report": report},
        )

    def _check_apart(self, base: BackendState, slots: Sequence[Slot]) -> None:
        """A token starts from the base tokens of its text: none may be a row that is taken."""
        old = backend(base.tokenizer)
        with without_limits(old):
            encodings = old.encode_batch_fast(self.tokens, add_special_tokens=False)
        spelled = {slot.id: slot.token for slot in slots}
        for token, encoding in zip(self.tokens, encodings, strict=True):
            if held := [i for i in encoding.ids if i in spelled]:
                raise ValueError(
                    f"{token!r} holds {spelled[held[0]]!r}, the spelling of a slot that is reused "
                    f"(id {held[0]}) and so is no token any more: choose another text, or other "
                    "slots by pattern or ids."
                )

    def _check_new(self, base: BackendState) -> None:
        normalizer = backend(base.tokenizer).normalizer
        first: dict[str, str] = {}
        for token in self.tokens:
            if token in base.ids:
                raise ValueError(
                    f"{token!r} is token {base.ids[token]} of the base already: choose another "
                    "text, or leave it out."
                )
            text = token if normalizer is None else normalizer.normalize_str(token)
            if first.setdefault(text, token) != token:
                raise ValueError(
                    f"{token!r} and {first[text]!r} are one text ({text!r}) after the base's "
                    "normalizer: keep one of them."
                )
