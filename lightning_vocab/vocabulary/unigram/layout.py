"""What growth needs to know of a Unigram base: its scores, and what it can write."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_vocab.vocabulary.backend_state import BackendState
from lightning_vocab.vocabulary.bpe.layout import BLANK
from lightning_vocab.vocabulary.characters import NUM_CODE_POINTS
from lightning_vocab.vocabulary.fingerprint import backend

_UNKNOWN_PENALTY = 10.0
"""How far below its lowest score a Unigram model of `tokenizers` scores an unknown character."""

_CAN = (
    "ContinuedUnigram needs a SentencePiece-type Unigram tokenizer (T5, XLM-R, ALBERT) that cuts "
    "every text, and always in the same way."
)
_REACHED = (
    "plain text that is only normalized to its string would be cut into it: a token of the list "
    "always scores more than a cut with an unknown character, which it has"
)
_TOO_LOW = (
    "a score that keeps text away from it would lower that of unknown characters, which stand "
    "inside longer tokens of this base"
)


@dataclass(frozen=True)
class UnigramLayout:
    """A Unigram base, seen from its ids.

    Args:
        state: The tokenizer.
        tokens: Token of each id.
        scores: Score of each id, ``(num_ids,)``. Added tokens that stand outside the model's list
            have one with which no text reaches them.
    """

    state: BackendState
    tokens: tuple[str, ...]
    scores: npt.NDArray[np.float64]

    @property
    def num_listed(self) -> int:
        """Tokens in the model's own list; all behind them are added tokens."""
        return len(self.state.model["vocab"])

    @property
    def lowest_score(self) -> float:
        """The lowest score of the model's own list."""
        return float(self.scores[: self.num_listed].min())

    @property
    def unknown_score(self) -> float:
        """Score of each character that no token spells."""
        return self.lowest_score - _UNKNOWN_PENALTY

    @cached_property
    def is_spelled(self) -> npt.NDArray[np.bool_]:
        """Which code points are a token of their own, ``(0x110000,)``."""
        table = np.zeros(NUM_CODE_POINTS, bool)
        table[[ord(token) for token, _ in self.state.model["vocab"] if len(token) == 1]] = True
        return table

    @cached_property
    def is_hidden(self) -> npt.NDArray[np.bool_]:
        """Which code points stand in longer tokens and are none themselves, ``(0x110000,)``.

        Added tokens, byte tokens and ``<unk>`` are left aside: text that spells them is matched
        before it comes to the model, unless normalization alone spells them.
        """
        aside = {item["content"] for item in self.state.added_tokens}
        aside.add(self.tokens[self.state.model["unk_id"]])
        if self.state.model["byte_fallback"]:
            aside.update(f"<0x{byte:02X}>" for byte in range(256))
        alphabet = set("".join(token for token in self.tokens if token not in aside))
        table = np.zeros(NUM_CODE_POINTS, bool)
        table[list(map(ord, alphabet))] = True
        return table & ~self.is_spelled

    @cached_property
    def hides_characters(self) -> bool:
        """Whether some cuts of a text have unknown characters that others do not have."""
        return bool(self.is_hidden.any())

    def is_allowed(self, token: str) -> bool:
        """Whether a new token may be spelled so without being taken for something else.

        Decoders drop every blank of a text's first token, so blanks only stand at the front; the
        ByteFallback decoder reads every six-byte token ``<0x..>`` as one byte.

        Args:
            token: The token as the vocabulary would spell it.
        """
        looks_like_byte = len(token.encode()) == 6 and token.startswith("<0x") and token[-1] == ">"
        return token not in self.state.ids and not looks_like_byte and BLANK not in token[1:]


def read_unigram(state: BackendState) -> UnigramLayout:
    """The layout of a Unigram base.

    Args:
        state: The tokenizer to be continued.

    Raises:
        ValueError: If the tokenizer is not of a kind that can be continued, or an added token
            would change how plain text is cut; the message says why.
    """
    model = state.model
    if model.get("type") != "Unigram":
        advice = " Use ContinuedBPE for it." if model.get("type") == "BPE" else ""
        raise ValueError(f"{_CAN} This one is a {model.get('type')} model.{advice}")
    if model["unk_id"] is None:
        raise ValueError(f"{_CAN} This one has no unk token: it fails on unknown characters.")
    if model.get("alpha") or model.get("nbest_size"):
        raise ValueError(
            f"{_CAN} This one cuts text at random (alpha={model.get('alpha')}, "
            f"nbest_size={model.get('nbest_size')})."
        )
    pairs = model["vocab"]
    if len({token for token, _ in pairs}) < len(pairs):
        raise ValueError(f"{_CAN} This one spells two of its ids alike.")
    outside = [item for item in state.added_tokens if item["id"] >= len(pairs)]
    if [item["id"] for item in outside] != list(range(len(pairs), state.num_ids)):
        raise ValueError(f"{_CAN} This one has ids without a token before its last one.")
    scores = np.array([score for _, score in pairs], np.float64)
    layout = UnigramLayout(state, tuple(token for token, _ in pairs), scores)
    if not outside:
        return layout
    tokens = (*layout.tokens, *(item["content"] for item in outside))
    low = np.array([_lowered_score(layout, item) for item in outside])
    if layout.hides_characters and low.min() < layout.lowest_score:
        raise ValueError(_cannot_keep(outside[int(low.argmin())]["content"], _TOO_LOW))
    return UnigramLayout(state, tokens, np.concatenate([scores, low]))


def _lowered_score(layout: UnigramLayout, item: dict[str, Any]) -> float:
    """A score with which an added token, once in the model's list, is never reached by text.

    It has to enter the list to keep its id. One below the token's own best cut, that cut wins.
    """
    content = item["content"]
    if layout.is_spelled[[ord(char) for char in content]].all():
        pieces = [piece.id for piece in backend(layout.state.tokenizer).model.tokenize(content)]
        return float(layout.scores[pieces].sum()) - 1.0
    # An unknown character scores less than any token, so a token that holds one always wins.
    if not _reaches_model(layout.state, item):
        return layout.unknown_score
    # Its id cannot stay outside either: `tokenizers` numbers such tokens behind the whole list.
    raise ValueError(_cannot_keep(content, _REACHED))


def _cannot_keep(content: str, reason: str) -> str:
    return (
        f"Added token {content!r} cannot keep its id: new tokens need it inside the model's list, "
        f"where {reason}. Grow the tokenizer first and add such tokens afterwards."
    )


def _reaches_model(state: BackendState, item: dict[str, Any]) -> bool:
    """Whether the token's text can come to the model without being matched beforehand."""
    is_always_matched = not item["special"] and not item["single_word"] and item["normalized"]
    if is_always_matched:
        return False
    cutter = backend(state.tokenizer).pre_tokenizer
    if cutter is None:
        return True
    return any(item["content"] in word for word, _ in cutter.pre_tokenize_str(item["content"]))
