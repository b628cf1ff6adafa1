"""Grown tokenizers as SentencePiece files."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from lightning_vocab.rows import export_model
from lightning_vocab.vocabulary import (
    AddTokens,
    ContinuedBPE,
    ExpandedTokenizer,
    describe_expansion,
    load_expansion,
    load_tokenizer,
    save_expansion,
)
from lightning_vocab.vocabulary.backend_state import reload_with
from lightning_vocab.vocabulary.fingerprint import backend, fingerprint
from lightning_vocab.vocabulary.merging.merge_tokenizer import MergeTokenizer
from lightning_vocab.vocabulary.sentencepiece.model import grown_model, write_sentencepiece
from lightning_vocab.vocabulary.sentencepiece.pieces import NoSentencePieceError
from tests.conftest import case, make_model, make_tokenizer
from tests.vocabulary.conftest import texts_of
from tests.vocabulary.sentencepiece.pieces import (
    ENGLISH,
    load_beside,
    proto_of,
    trained,
    write_pieces,
)

NEW = ["ภาษาไทย ภาษา ไทย ชาติไทย", "the quick zebra and the quick zebu", "thequick thezebra"] * 3
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5


@pytest.fixture(scope="module")
def grown(base: PreTrainedTokenizerBase) -> ExpandedTokenizer:
    return ContinuedBPE(25, progress=False).extend(base, NEW)


@pytest.fixture(scope="module")
def pair(grown: ExpandedTokenizer) -> tuple[Tokenizer, Any]:
    processor = SentencePieceProcessor(model_proto=grown_model(grown))
    return backend(grown.tokenizer), processor


TEXTS = st.text("thequickzebra. ภาษไยชติ\n中", max_size=40).filter(lambda text: "  " not in text)


@pytest.mark.slow
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=TEXTS)
@example(text="thequick zebra ภาษาไทย")
def test_sentencepiece_gives_the_ids_of_the_hugging_face_tokenizer(
    text: str, pair: tuple[Tokenizer, Any]
) -> None:
    text = text.strip(" ")
    assert pair[1].encode(text) == pair[0].encode(text, add_special_tokens=False).ids


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=st.lists(st.text("theaก", min_size=2, max_size=6), min_size=4, max_size=30, unique=True),
    texts=st.lists(st.text("theaก", max_size=40), min_size=1, max_size=30),
)
def test_whatever_is_merged_sentencepiece_follows(
    words: list[str], texts: list[str], base: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    # Many tokens of few letters, where many neighbours spell a token.
    path = write_pieces(tmp_path / "m.model", ["ก", "กก", *(w for w in words if w != "กก")])
    grown = MergeTokenizer(path).extend(base)
    processor = SentencePieceProcessor(model_proto=grown_model(grown))
    encodings = backend(grown.tokenizer).encode_batch(texts, add_special_tokens=False)
    assert processor.encode(texts) == [encoding.ids for encoding in encodings]


def test_old_pieces_stay_and_new_ones_follow_with_falling_scores(
    content: bytes, grown: ExpandedTokenizer
) -> None:
    old, new = proto_of(content), proto_of(grown_model(grown))
    assert list(new.pieces[: len(old.pieces)]) == list(old.pieces)
    added = new.pieces[len(old.pieces) :]
    assert [piece.piece for piece in added] == [token.token for token in grown.expansion.tokens]
    assert all(piece.type == NORMAL for piece in added)
    scores = [min(piece.score for piece in old.pieces), *(piece.score for piece in added)]
    assert all(left > right for left, right in pairwise(scores))
    assert new.trainer_spec.vocab_size == len(new.pieces)
    assert new.normalizer_spec == old.normalizer_spec


def test_scores_stay_distinct_where_float32_has_gaps(content: bytes, tmp_path: Path) -> None:
    proto = proto_of(content)
    proto.pieces[-1].score = -1e9
    base = load_beside(
        tmp_path, proto.SerializeToString(), "tokenizer.model", tokenizer_class="LlamaTokenizer"
    )
    grown = ContinuedBPE(25, progress=False).extend(base, NEW)
    scores = [piece.score for piece in proto_of(grown_model(grown)).pieces[299:]]
    assert scores[0] == -1e9
    assert all(left > right for left, right in pairwise(scores))


def test_saved_folder_holds_the_file_and_loads_to_the_same_tokenizer(
    grown: ExpandedTokenizer, tmp_path: Path
) -> None:
    path = save_expansion(grown, tmp_path / "a")
    assert (path / "tokenizer.model").read_bytes() == grown_model(grown)
    assert fingerprint(AutoTokenizer.from_pretrained(path)) == (
        grown.expansion.tokenizer_fingerprint
    )
    again = save_expansion(load_expansion(path), tmp_path / "b")
    assert (again / "tokenizer.model").read_bytes() == (path / "tokenizer.model").read_bytes()


def test_the_file_alone_loads_to_a_tokenizer_that_cuts_alike(
    grown: ExpandedTokenizer, tmp_path: Path
) -> None:
    path = save_expansion(grown, tmp_path / "a")
    (path / "tokenizer.json").unlink()
    alone = AutoTokenizer.from_pretrained(path)
    for text in (*NEW, *ENGLISH):
        assert alone.encode(text) == grown.tokenizer.encode(text)


def test_exported_model_keeps_the_file(grown: ExpandedTokenizer, tmp_path: Path) -> None:
    path = export_model(make_model(len(grown.tokenizer)), grown, tmp_path / "exported")
    assert (path / "tokenizer.model").read_bytes() == grown_model(grown)


def test_growth_upon_growth_continues_the_file(grown: ExpandedTokenizer, tmp_path: Path) -> None:
    first = load_tokenizer(save_expansion(grown, tmp_path / "a"))
    second = MergeTokenizer(write_pieces(tmp_path / "m.model", ["xy", "xyx", "ม"])).extend(first)
    processor = SentencePieceProcessor(model_proto=grown_model(second))
    for text in ("xyxyx the quick zebra", "มxyx ภาษาไทย"):
        assert processor.encode(text) == second.tokenizer.encode(text, add_special_tokens=False)


def test_protocol_tokens_are_control_or_user_defined_and_gaps_unused(
    base: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    special = AddTokens(["<|tool|>"], special=True).extend(base)
    first = load_tokenizer(save_expansion(special, tmp_path / "a"))
    plain = AddTokens(["<|item|>"]).extend(first)
    pieces = proto_of(grown_model(plain)).pieces
    assert [(piece.piece, piece.type) for piece in pieces[300:]] == [
        ("<|tool|>", CONTROL),
        ("<|item|>", USER_DEFINED),
    ]


def with_model(tokenizer: PreTrainedTokenizerBase, **changes: Any) -> PreTrainedTokenizerBase:
    data = json.loads(backend(tokenizer).to_str())
    data["model"] |= changes
    return reload_with(tokenizer, json.dumps(data))


def test_an_id_without_a_token_becomes_an_unused_piece(base: PreTrainedTokenizerBase) -> None:
    model = json.loads(backend(base).to_str())["model"]
    far = with_model(
        base, vocab={**model["vocab"], "xw": 302}, merges=[*model["merges"], ["x", "w"]]
    )
    pieces = proto_of(grown_model(describe_expansion(base, far))).pieces
    assert [piece.type for piece in pieces[300:]] == [UNUSED, UNUSED, NORMAL]
    assert pieces[302].piece == "xw"


def test_merges_that_sentencepiece_would_not_follow_are_refused_and_warned_of(
    base: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model = json.loads(backend(base).to_str())["model"]
    # Two ways to one token: SentencePiece knows no order between them.
    merges = [*model["merges"], ["a", "x"], ["x", "a"], ["a", "xa"], ["ax", "a"]]
    vocab = {**model["vocab"], "ax": 300, "xa": 301, "axa": 302}
    odd = describe_expansion(base, with_model(base, vocab=vocab, merges=merges))
    with pytest.raises(NoSentencePieceError, match="would not follow merge"):
        write_sentencepiece(odd, tmp_path / "tokenizer.model")
    with pytest.warns(UserWarning, match=r"No tokenizer\.model is written .* would not follow"):
        path = save_expansion(odd, tmp_path / "odd")
    assert not (path / "tokenizer.model").exists()


def test_a_base_without_a_file_and_a_file_of_another_base_are_refused(
    grown: ExpandedTokenizer, tmp_path: Path
) -> None:
    byte_level = AddTokens(["<|tool|>"]).extend(make_tokenizer())
    with pytest.raises(NoSentencePieceError, match="not loaded beside a SentencePiece file"):
        grown_model(byte_level)
    path = save_expansion(byte_level, tmp_path / "plain")
    assert not list(path.glob("*.model"))
    for model_type, message in (("bpe", "is not the base's: its piece"), ("unigram", "Unigram")):
        other = trained(ENGLISH * 3, 300 if model_type == "bpe" else 40, model_type)
        proto = proto_of(other)
        proto.pieces[280 % len(proto.pieces)].piece = "another"
        wrong = ExpandedTokenizer(grown.tokenizer, grown.expansion, proto.SerializeToString())
        with pytest.raises(NoSentencePieceError, match=message):
            grown_model(wrong)


def test_unigram_pieces_keep_their_scores(tmp_path: Path) -> None:
    content = trained(ENGLISH * 3, 40, "unigram")
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "pad_token": "<unk>"}
    base = load_beside(tmp_path / "base", content, "spiece.model", **config)
    vocab = json.loads(backend(base).to_str())["model"]["vocab"]
    num_old = len(vocab)
    far = with_model(base, vocab=[*vocab, ["▁thecat", -3.0], ["zebra", -7.25]])
    grown = describe_expansion(base, far)
    path = save_expansion(grown, tmp_path / "grown")
    pieces = proto_of((path / "spiece.model").read_bytes()).pieces
    assert [(p.piece, p.score) for p in pieces[num_old:]] == [("▁thecat", -3.0), ("zebra", -7.25)]
    processor = SentencePieceProcessor(model_file=str(path / "spiece.model"))
    for text in ("thecat sat on thecat", "what a log thecat learns", *ENGLISH):
        assert processor.encode(text) == far.encode(text, add_special_tokens=False)


def test_unigram_scores_that_single_precision_loses_are_refused(tmp_path: Path) -> None:
    content = trained(ENGLISH * 3, 40, "unigram")
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "pad_token": "<unk>"}
    base = load_beside(tmp_path, content, "spiece.model", **config)
    vocab = json.loads(backend(base).to_str())["model"]["vocab"]
    grown = describe_expansion(base, with_model(base, vocab=[*vocab, ["▁thecat", -3.0 - 2**-29]]))
    with pytest.raises(NoSentencePieceError, match=r"1 scores .* need more .* '▁thecat'"):
        grown_model(grown)


REAL = ("tokenizers/llama2", "lm/stories260K", "tokenizers/storyllamas-4096")


@pytest.mark.slow
@pytest.mark.assets
@pytest.mark.parametrize("name", [case(each, quick=each == REAL[1]) for each in REAL])
def test_real_bases_differ_no_more_from_sentencepiece_than_before(name: str, assets: Path) -> None:
    with (assets / "text/ntrex_en_th_vi.jsonl").open(encoding="utf-8") as rows:
        lines = [json.loads(row)[key] for row in list(rows)[::4] for key in ("en", "th", "vi")]
    base = load_tokenizer(assets / name)
    texts = [
        *texts_of(assets / "text/th_wisesight.jsonl", 500),
        *(text[:4000] for text in texts_of(assets / "text/vi_wikipedia.jsonl", 20)),
    ]
    grown = ContinuedBPE(300, progress=False).extend(base, texts)
    old = SentencePieceProcessor(model_file=str(assets / name / "tokenizer.model"))
    new = SentencePieceProcessor(model_proto=grown_model(grown))
    counts = []
    for tokenizer, processor in ((base, old), (grown.tokenizer, new)):
        encodings = backend(tokenizer).encode_batch_fast(lines, add_special_tokens=False)
        ids = [encoding.ids for encoding in encodings]
        counts.append([a != b for a, b in zip(ids, processor.encode(lines), strict=True)])
    # Runs of blanks, which two of the bases cut otherwise than their files.
    assert sum(counts[0]) == {REAL[0]: 8, REAL[1]: 0, REAL[2]: 16}[name]
    assert counts[1] == counts[0]
