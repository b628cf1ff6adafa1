"""A grown tokenizer made by hand, for tests that need an expansion and no extender."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lightning_vocab.vocabulary.expansion import (
    ExpandedTokenizer,
    NewToken,
    TokenKind,
    VocabularyExpansion,
)
from lightning_vocab.vocabulary.fingerprint import backend, fingerprint


def make_expanded(
    tokenizer: PreTrainedTokenizerBase,
    words: Sequence[str],
    *,
    base_rows: int | None = None,
    slots: Mapping[int, str] | None = None,
) -> ExpandedTokenizer:
    """Add ``words`` as protocol tokens behind the tokenizer's last id; the argument is not changed.

    ``slots`` renames added tokens of the base (``{id: new text}``, see `with_slots`), so that new
    rows lie in the middle of the matrix. ``base_rows`` (default: the tokenizer's length) above the
    tokenizer's length makes the first words fall on padded rows.
    """
    rows = len(tokenizer) if base_rows is None else base_rows
    grown = _renamed(tokenizer, slots or {})
    assert grown.add_tokens(list(words)) == len(words), "a word is in the tokenizer already"
    taken: list[tuple[int, str, TokenKind]] = []
    taken += [(id, text, "slot") for id, text in (slots or {}).items()]
    taken += [(len(tokenizer) + place, word, "special") for place, word in enumerate(words)]
    tokens = tuple(
        NewToken(
            id=id,
            token=text,
            surface=text,
            kind=kind,
            pieces=tuple(tokenizer.encode(text, add_special_tokens=False)),
        )
        for id, text, kind in sorted(taken)
    )
    return ExpandedTokenizer(
        tokenizer=grown,
        expansion=VocabularyExpansion(
            base_len=len(tokenizer),
            base_rows=rows,
            num_rows=max(rows, len(grown)),
            tokens=tokens,
            base_fingerprint=fingerprint(tokenizer),
            tokenizer_fingerprint=fingerprint(grown),
            extender={"name": "make_expanded"},
            created_with={},
        ),
    )


def with_slots(tokenizer: PreTrainedTokenizerFast, count: int = 2) -> PreTrainedTokenizerFast:
    """A copy with reserved tokens ``<|reserved_0|>``, … and one token ``<|last|>`` behind them."""
    grown = copy.deepcopy(tokenizer)
    grown.add_tokens([f"<|reserved_{i}|>" for i in range(count)], special_tokens=True)
    grown.add_tokens(["<|last|>"], special_tokens=True)
    return grown


def _renamed(
    tokenizer: PreTrainedTokenizerBase, slots: Mapping[int, str]
) -> PreTrainedTokenizerBase:
    if not slots:
        return copy.deepcopy(tokenizer)
    state = json.loads(backend(tokenizer).to_str())
    added = {entry["id"]: entry for entry in state["added_tokens"]}
    for id, text in slots.items():
        added[id].update(content=text, special=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token,
    )
