"""What growth promises, on every kind of tokenizer that can be continued."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer

from lightning_vocab.vocabulary import MANIFEST_NAME, VocabularyExpansion, fingerprint
from lightning_vocab.vocabulary.fingerprint import backend
from tests.vocabulary.conftest import CHAT_TEMPLATE, NUM_NEW_TOKENS, Grown

SNIPPETS = st.sampled_from(
    [
        "<|endoftext|>", "<|im_end|>", "<|eot_id|>", "</s>", "<s>", "<0xE0>", "<0x0A>", "▁", "▁▁",
        " ", "  ", "\n", "\r\n", "\t", "สวัสดีครับ", "ที่", "ก็", "กกกก", "ๆๆ", "Hà Nội", "nhưng",
        "5555", "don't", "e\u0301", "👩‍👩‍👧", "\u200b", "\x00", "ﬁ", "½", "न्", "中文", "the cat",
    ]
)  # fmt: skip
TEXTS = st.lists(SNIPPETS | st.text(st.characters(codec="utf-8"), max_size=8), max_size=8).map(
    "".join
)
SHARED = settings(
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="session")
def ntrex(assets: Path) -> list[str]:
    lines = (assets / "text/ntrex_en_th_vi.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)[language] for line in lines for language in ("en", "th", "vi")]


@pytest.fixture(scope="session")
def both_cuts(grown: Grown, ntrex: list[str]) -> tuple[list[list[int]], list[list[int]]]:
    """Ids of all lines before and after growth."""
    cuts = [
        [encoding.ids for encoding in tokenizer.encode_batch_fast(ntrex, add_special_tokens=False)]
        for tokenizer in (grown.old, grown.new)
    ]
    return cuts[0], cuts[1]


def test_exactly_the_wanted_number_of_tokens_is_added(grown: Grown) -> None:
    first = max(grown.base.get_vocab().values()) + 1
    assert grown.expanded.expansion.new_ids == tuple(range(first, first + NUM_NEW_TOKENS))
    assert len(grown.expanded.tokenizer) == len(grown.base) + NUM_NEW_TOKENS


def test_ids_of_all_old_tokens_stay(grown: Grown) -> None:
    before, after = grown.base.get_vocab(), grown.expanded.tokenizer.get_vocab()
    assert {token: after[token] for token in before} == before


def test_added_tokens_keep_ids_and_settings(grown: Grown) -> None:
    before, after = grown.old.get_added_tokens_decoder(), grown.new.get_added_tokens_decoder()
    assert {i: repr(token) for i, token in after.items()} == {
        i: repr(token) for i, token in before.items()
    }


def merges_text(tokenizer: Tokenizer) -> str:
    """The merges as the JSON spells them, where they come last: parsing them takes a second."""
    return str(tokenizer.to_str()).split('"merges":[')[1].removesuffix("]}}")


def test_base_merges_are_a_prefix_of_the_new_merges(grown: Grown) -> None:
    old, new = merges_text(grown.old), merges_text(grown.new)
    assert old.endswith('"]')
    assert new.startswith(old + ",[")


def test_no_new_token_is_dead_without_ignore_merges(grown: Grown) -> None:
    model = grown.new.model
    assert isinstance(model, models.BPE)
    before = model.ignore_merges
    try:
        model.ignore_merges = False
        found = [
            [piece.id for piece in model.tokenize(token.token)]
            for token in grown.expanded.expansion.tokens
        ]
    finally:
        model.ignore_merges = before
    assert found == [[i] for i in grown.expanded.expansion.new_ids]


def test_no_line_gets_more_tokens(both_cuts: tuple[list[list[int]], list[list[int]]]) -> None:
    assert all(len(new) <= len(old) for old, new in zip(*both_cuts, strict=True))


def test_lines_that_are_cut_anew_get_fewer_tokens(
    both_cuts: tuple[list[list[int]], list[list[int]]],
) -> None:
    changed = [(old, new) for old, new in zip(*both_cuts, strict=True) if old != new]
    assert changed
    assert all(len(new) < len(old) for old, new in changed)


def test_every_line_decodes_as_with_the_base(
    grown: Grown, both_cuts: tuple[list[list[int]], list[list[int]]]
) -> None:
    old, new = both_cuts
    assert grown.new.decode_batch(new) == grown.old.decode_batch(old)


def test_new_tokens_stand_for_their_pieces(
    grown: Grown, both_cuts: tuple[list[list[int]], list[list[int]]]
) -> None:
    pieces = {token.id: token.pieces for token in grown.expanded.expansion.tokens}
    old, new = both_cuts
    spelled_out = [[p for i in ids for p in pieces.get(i, (i,))] for ids in new]
    assert spelled_out == old


@SHARED
@given(text=TEXTS)
def test_no_text_gets_more_tokens_and_every_text_decodes_as_before(grown: Grown, text: str) -> None:
    for special in (True, False):
        old = grown.old.encode(text, add_special_tokens=special).ids
        new = grown.new.encode(text, add_special_tokens=special).ids
        assert len(new) <= len(old)
        assert grown.new.decode(new) == grown.old.decode(old)
        assert grown.new.decode(new, skip_special_tokens=False) == grown.old.decode(
            old, skip_special_tokens=False
        )


@SHARED
@given(text=TEXTS)
def test_text_with_specials_split_never_reaches_an_added_token(grown: Grown, text: str) -> None:
    added = set(grown.old.get_added_tokens_decoder())
    was_reached = []
    for tokenizer in (grown.old, grown.new):
        tokenizer.encode_special_tokens = True
        try:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
        finally:
            tokenizer.encode_special_tokens = False
        was_reached.append(sorted(added.intersection(ids)))
    assert was_reached[0] == was_reached[1]


def test_saved_folder_reloads_to_the_same_tokenizer(grown: Grown, saved: Path) -> None:
    reloaded = AutoTokenizer.from_pretrained(saved)
    assert type(reloaded) is type(grown.base)
    assert reloaded.chat_template == CHAT_TEMPLATE
    assert reloaded.special_tokens_map == grown.base.special_tokens_map
    assert backend(reloaded).to_str() == grown.new.to_str()
    assert fingerprint(reloaded) == grown.expanded.expansion.tokenizer_fingerprint
    chat = [{"role": "user", "content": "สวัสดี"}]
    assert reloaded.apply_chat_template(chat, tokenize=False) == "สวัสดี"


def test_folder_holds_the_tokenizer_and_the_manifest_alone(grown: Grown, saved: Path) -> None:
    expected = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", MANIFEST_NAME}
    if grown.name in ("llama2", "stories260K"):
        expected.add("tokenizer.model")
    assert {path.name for path in saved.iterdir()} == expected


def test_manifest_in_the_folder_is_the_one_in_memory(grown: Grown, saved: Path) -> None:
    text = (saved / MANIFEST_NAME).read_text(encoding="utf-8")
    assert VocabularyExpansion.from_json(text) == grown.expanded.expansion
