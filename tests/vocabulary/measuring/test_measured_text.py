"""Texts measured with several tokenizers, against counts one document at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lightning_vocab.vocabulary.measuring.fertility import encode_batch
from lightning_vocab.vocabulary.measuring.measured_text import MeasuredText, measure_text
from lightning_vocab.vocabulary.measuring.parity import parity
from lightning_vocab.vocabulary.measuring.text_size import UNITS
from lightning_vocab.vocabulary.measuring.token_use import token_use
from lightning_vocab.vocabulary.measuring.word_tokens import word_cores, words_in_one_token
from tests.conftest import TEXTS, make_tokenizer

LINES = [*TEXTS, "", "ก่อน the cat", 'the "cat", the dog.']


def metaspace() -> PreTrainedTokenizerFast:
    """A token a character with byte fallback, and ▁cat; it puts a blank before every text."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁actใ", "ca", "cat", "▁cat"]
    vocab = {piece: id_ for id_, piece in enumerate(pieces)}
    merges = [("c", "a"), ("ca", "t"), ("▁", "cat")]
    backend = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


def words_only() -> PreTrainedTokenizerFast:
    backend = Tokenizer(
        models.WordLevel({"<unk>": 0, "the": 1, "cat": 2, "a": 3}, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


def test_tokens_and_counts_are_those_of_one_document_at_a_time() -> None:
    small, large = make_tokenizer(280), make_tokenizer(300)
    found = measure_text({"small": small, "large": large}, iter(LINES))
    for name, tokenizer in (("small", small), ("large", large)):
        ids = [id_ for text in LINES for id_ in encode_batch(tokenizer, [text])[0]]
        assert found.fertility(name).num_tokens == len(ids)
        assert found.counts[name].tolist() == np.bincount(ids, minlength=len(tokenizer)).tolist()
    assert found.size.num_documents == len(LINES)


def test_texts_add_up() -> None:
    tokenizers = {"a": make_tokenizer(280), "b": metaspace()}
    first, second = (measure_text(tokenizers, part) for part in (LINES[:2], LINES[2:]))
    whole, total = measure_text(tokenizers, LINES), first + second
    assert total.size == whole.size
    assert total.one_token_words == whole.one_token_words
    for name in tokenizers:
        assert total.counts[name].tolist() == whole.counts[name].tolist()


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizers = {"a": make_tokenizer()}
    whole = measure_text(tokenizers, LINES * 3)
    monkeypatch.setattr("lightning_vocab.vocabulary.measuring.text_size._BATCH_CHARACTERS", 50)
    found = measure_text(tokenizers, LINES * 3)
    torch.testing.assert_close(found.resampled, whole.resampled)
    assert found.figures("a", tokenizers["a"]) == whole.figures("a", tokenizers["a"])


def test_truncation_left_on_by_a_caller_cuts_nothing() -> None:
    tokenizer = make_tokenizer()
    expected = measure_text({"a": tokenizer}, LINES).fertility("a").num_tokens
    tokenizer(["the cat"], truncation=True, max_length=2)
    assert measure_text({"a": tokenizer}, LINES).fertility("a").num_tokens == expected


def test_one_document_has_no_interval_and_many_have() -> None:
    tokenizer = make_tokenizer()
    assert measure_text({"a": tokenizer}, LINES[:1]).interval("tokens_per_byte", "a") is None
    found = measure_text({"a": tokenizer}, LINES * 5)
    interval = found.interval("tokens_per_byte", "a")
    assert interval is not None
    assert interval[0] < found.fertility("a").tokens_per_byte < interval[1]
    assert (
        measure_text({"a": tokenizer}, LINES, num_resamples=0).interval("tokens_per_byte", "a")
        is None
    )


def test_unknown_byte_and_partial_tokens_are_told_apart() -> None:
    fallback = measure_text({"a": metaspace()}, ["cat ใ ก"]).figures("a", metaspace())
    # ▁cat ▁ ใ ▁ <0xE0> <0xB8> <0x81>
    assert fallback["byte_fallback_share"] == 3 / 7
    assert fallback["unknown_share"] == fallback["partial_character_share"] == 0
    level = measure_text({"a": make_tokenizer()}, ["ก \ufffd"]).figures("a", make_tokenizer())
    assert level["partial_character_share"] == 6 / 7  # bytes of ก and of U+FFFD, and a blank
    assert level["byte_fallback_share"] == level["unknown_share"] == 0
    words = measure_text({"a": words_only()}, ["the cat sat"]).figures("a", words_only())
    assert words["unknown_share"] == 1 / 3
    assert words["vocabulary_used_share"] == 3 / 4


def test_a_whole_token_for_the_replacement_character_is_not_partial() -> None:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    vocab = {piece: id_ for id_, piece in enumerate([*sorted(alphabet), "ï¿", "ï¿½"])}
    backend = Tokenizer(models.BPE(vocab, [("ï", "¿"), ("ï¿", "½")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    counts = np.zeros(len(vocab), np.int64)
    counts[[vocab["ï¿½"], vocab["ï¿"]]] = 5, 2
    assert token_use(tokenizer, counts).num_partial == 2


@pytest.mark.parametrize("make", [make_tokenizer, metaspace, words_only])
def test_words_in_one_token_are_counted_as_they_stand_in_a_text(
    make: Callable[[], PreTrainedTokenizerFast],
) -> None:
    tokenizer = make()
    words = {"cat": 3, "the": 2, "zq": 1}
    expected = 0
    for word, count in words.items():
        before, both = encode_batch(tokenizer, ["a", f"a {word}"])
        assert both[: len(before)] == before
        is_known = both[-1] != tokenizer.unk_token_id
        expected += count * (len(both) - len(before) == 1 and is_known)
    assert 0 < expected < 6
    assert words_in_one_token(tokenizer, words) == expected


def test_split_words_have_no_blank_before_them() -> None:
    # metaspace() writes cat as one token after a line break, ▁cat only after a blank.
    words = {"cat": 2, "at": 1}
    assert words_in_one_token(metaspace(), words, after_blank=False) == 2
    assert words_in_one_token(words_only(), {"cat": 2, "dog": 1}, after_blank=False) == 2


def test_split_words_are_not_judged_where_a_blank_always_stands_before_them() -> None:
    tokenizer = metaspace()
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace("\n", " "), normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    assert words_in_one_token(tokenizer, {"cat": 2}, after_blank=False) is None
    found = measure_text({"a": tokenizer}, ["cat cat"], split_words=str.split)
    assert found.figures("a", tokenizer)["words_in_one_token_share"] is None


def test_signs_around_a_word_are_not_of_it() -> None:
    assert word_cores({'"cat",': 2, "cat": 1, "--": 4, "it's.": 1}) == {"cat": 3, "it's": 1}


def test_a_script_without_blanks_has_words_only_by_a_splitter() -> None:
    tokenizers = {"a": make_tokenizer()}
    text = ["ไปบ้าน", "บ้านไป"]
    found = measure_text(tokenizers, text).figures("a", tokenizers["a"])
    assert found["tokens_per_word"] is found["words_in_one_token_share"] is None
    split = measure_text(tokenizers, text, split_words=lambda line: [line[:2], line[2:]])
    figures = split.figures("a", tokenizers["a"])
    assert figures["tokens_per_word"] == figures["num_tokens"] / 4
    assert figures["words_in_one_token_share"] == 0.0


def test_parity_is_the_ratio_of_tokens_and_aligned_rows_are_resampled_together() -> None:
    tokenizers = {"a": make_tokenizer()}
    english = measure_text(tokenizers, ["the cat", "the dog sat", "a"] * 9)
    doubled = measure_text(tokenizers, ["the catthe cat", "the dog satthe dog sat", "aa"] * 9)
    found = parity(doubled, english, "a")
    ratio = doubled.fertility("a").num_tokens / english.fertility("a").num_tokens
    assert found.tokens_ratio == ratio
    assert found.interval is not None
    assert found.interval[1] - found.interval[0] < 0.15 * ratio
    same = parity(english, english, "a")
    assert same.tokens_ratio == 1.0
    assert same.interval == pytest.approx((1.0, 1.0))


def test_texts_of_different_length_have_no_parity() -> None:
    tokenizers = {"a": make_tokenizer()}
    one, two = measure_text(tokenizers, ["a"]), measure_text(tokenizers, ["a", "b"])
    with pytest.raises(ValueError, match="text has 1, reference has 2"):
        parity(one, two, "a")


def test_counts_beyond_the_last_id_seen_are_zero() -> None:
    found = measure_text({"a": make_tokenizer()}, ["the the"])
    assert found.counts_of("a", [10_000, 0]).tolist() == [0, 0]


def test_what_cannot_be_measured_is_refused() -> None:
    tokenizer = make_tokenizer()
    with pytest.raises(ValueError, match="at least one tokenizer"):
        measure_text({}, ["a"])
    with pytest.raises(ValueError, match="every document is empty"):
        measure_text({"a": tokenizer}, ["", ""])
    with pytest.raises(ValueError, match="Document 1 holds a lone surrogate"):
        measure_text({"a": tokenizer}, ["a", "\ud800"])
    silent = MeasuredText(
        1, np.ones(len(UNITS), np.int64), {"a": np.zeros(3, np.int64)}, {}, torch.zeros(0, 7)
    )
    with pytest.raises(ValueError, match="'a' makes no token"):
        silent.figures("a", tokenizer)
