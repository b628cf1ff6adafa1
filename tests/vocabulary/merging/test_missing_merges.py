"""The merges that a base lacks, against their definition written down."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_vocab.vocabulary.backend_state import read_state
from lightning_vocab.vocabulary.bpe.layout import read_layout
from lightning_vocab.vocabulary.merging.missing_merges import Reached, missing_merges
from tests.vocabulary.conftest import make_fallback_tokenizer


def reference(merges: list[tuple[str, str]], tokens: Sequence[str]) -> list[tuple[str, str]]:
    """Passes over the tokens in order, each cut with all the merges that there are; two pieces make
    a merge at the end of the list.
    """
    merges, start, known, was = list(merges), len(merges), set[str](), -1
    while was < len(known):
        was = len(known)
        for token in tokens:
            pieces = cut(token, merges)
            if token not in known and len(pieces) == 2:
                merges.append((pieces[0], pieces[1]))
                known.add(token)
    return merges[start:]


def cut(word: str, merges: Sequence[tuple[str, str]]) -> list[str]:
    pieces = list(word)
    rank = {merge: k for k, merge in enumerate(merges)}
    while True:
        pairs = [rank.get((a, b), len(rank)) for a, b in pairwise(pieces)]
        if not pairs or min(pairs) == len(rank):
            return pieces
        at = pairs.index(min(pairs))
        pieces[at : at + 2] = ["".join(pieces[at : at + 2])]


WORDS = st.lists(st.text("inabก", min_size=2, max_size=6), unique=True, max_size=25)
FALLBACK = make_fallback_tokenizer()
FALLBACK_LAYOUT = read_layout(read_state(FALLBACK))


@settings(max_examples=150, deadline=None)
@given(words=WORDS)
def test_merges_are_those_of_the_slow_definition(words: list[str]) -> None:
    words = [word for word in words if word not in FALLBACK_LAYOUT.taken]
    old = [(left, right) for left, right in FALLBACK_LAYOUT.state.model["merges"]]
    found = missing_merges(FALLBACK_LAYOUT, ["ก", *words])
    assert found.characters == ("ก",)
    assert list(found.merges) == reference(old, words)


def test_the_first_tokens_come_with_all_that_they_are_built_from() -> None:
    reached = Reached(("x",), (("a", "b"), ("ab", "c"), ("abc", "x"), ("d", "e")))
    order = ["abcx", "de", "ab", "abc", "x"]
    assert reached.first(1, order).tokens == ["de"]
    assert reached.first(2, order).tokens == ["ab", "de"]
    assert reached.first(4, order).tokens == ["x", "ab", "abc", "abcx"]
    assert reached.first(9, order) == reached
