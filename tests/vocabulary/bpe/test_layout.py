from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from lightning_vocab.vocabulary.backend_state import read_state
from lightning_vocab.vocabulary.bpe.layout import BpeLayout, read_layout


@pytest.fixture
def byte_level(tokenizer: PreTrainedTokenizerFast) -> BpeLayout:
    return read_layout(read_state(tokenizer))


@pytest.fixture
def byte_fallback(fallback_tokenizer: PreTrainedTokenizerFast) -> BpeLayout:
    return read_layout(read_state(fallback_tokenizer))


def test_both_kinds_are_told_apart(byte_level: BpeLayout, byte_fallback: BpeLayout) -> None:
    assert (byte_level.kind, byte_level.cuts_words) == ("byte-level", True)
    assert (byte_fallback.kind, byte_fallback.cuts_words) == ("byte-fallback", False)


# ก is E0 B8 81, which the byte alphabet spells à¸ģ; é is C3 A9, spelled Ã©.
@pytest.mark.parametrize(
    ("token", "expected"),
    [("Ġab", 3), ("à¸ģ", 1), ("à¸", 1), ("¸ģ", 1), ("à¸ģà¸", 2), ("¸ģa", 2), ("Ã©Ã©", 2)],
)
def test_a_part_of_a_character_counts_as_one(
    token: str, expected: int, byte_level: BpeLayout
) -> None:
    assert byte_level.num_characters(token) == expected


def test_characters_of_a_fallback_token_are_its_own(byte_fallback: BpeLayout) -> None:
    assert byte_fallback.num_characters("▁กข") == 3


def test_barriers_are_special_unknown_and_byte_tokens(byte_fallback: BpeLayout) -> None:
    barriers = {byte_fallback.tokens[i] for i in byte_fallback.is_barrier.nonzero()[0]}
    assert barriers == {"<unk>", "<s>", "</s>"} | {f"<0x{byte:02X}>" for byte in range(256)}


@pytest.mark.parametrize(
    ("token", "expected"),
    [("▁new", True), ("the▁new", False), ("▁the", False), ("<0xe0>", False), ("<0x+1>", False)],
)
def test_strings_that_would_be_read_otherwise_are_not_allowed(
    token: str, expected: bool, byte_fallback: BpeLayout
) -> None:
    assert byte_fallback.is_allowed(token) is expected
