"""Tokens of a second tokenizer, made reachable in a base."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lightning_vocab.vocabulary import ExpandedTokenizer, load_tokenizer
from lightning_vocab.vocabulary.backend_state import read_state
from lightning_vocab.vocabulary.fingerprint import backend
from lightning_vocab.vocabulary.merging.candidates import CUT, PROTOCOL, UNSPELLABLE
from lightning_vocab.vocabulary.merging.merge_tokenizer import BEYOND, UNREACHABLE, MergeTokenizer
from lightning_vocab.vocabulary.sentencepiece.model import grown_model
from tests.conftest import make_tokenizer
from tests.vocabulary.conftest import make_fallback_tokenizer
from tests.vocabulary.sentencepiece.pieces import write_pieces

THAI = "ภาษาไทยเป็นภาษาราชการ และภาษาประจำชาติของประเทศไทย "
CHINESE = (
    "今天天气很好，我们一起去公园散步吧。",
    "中华人民共和国的首都是北京，那里有很多历史悠久的建筑。",
    "他一边喝茶，一边看书，觉得生活非常幸福。",
    "人工智能技术的发展越来越快，改变了人们的工作方式。",
    "小明问老师：“这道题怎么做？”老师笑着说：“你再想一想。”",
)
"""Written for this test."""


def tokens_of(grown: ExpandedTokenizer) -> list[str]:
    return [token.token for token in grown.expansion.tokens]


def merged(
    base: PreTrainedTokenizerBase, folder: Path, pieces: Sequence[str], **settings: object
) -> ExpandedTokenizer:
    return MergeTokenizer(write_pieces(folder / "m.model", pieces), **settings).extend(base)  # type: ignore[arg-type]


def test_characters_come_first_then_tokens_in_the_others_order(
    fallback_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    grown = merged(fallback_tokenizer, tmp_path, ["ing", "กข", "ca", "ข", "cat", "ก"])
    assert tokens_of(grown) == ["ข", "ก", "ing", "กข", "ca", "cat"]
    start = len(fallback_tokenizer)
    assert grown.expansion.new_ids == tuple(range(start, start + 6))
    merges = read_state(grown.tokenizer).model["merges"]
    assert merges[-4:] == [["in", "g"], ["ก", "ข"], ["c", "a"], ["ca", "t"]]


def test_a_token_ranks_behind_its_parts(
    fallback_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    grown = merged(fallback_tokenizer, tmp_path, ["cats", "cat", "bed", "ca", "be"])
    assert tokens_of(grown) == ["ca", "be", "cat", "bed", "cats"]


def test_a_merge_is_taken_from_the_bases_own_cut(
    fallback_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    # The other has `bi`, but the base joins `in` first.
    grown = merged(fallback_tokenizer, tmp_path, ["bi", "bin"])
    assert read_state(grown.tokenizer).model["merges"][-1] == ["b", "in"]


def test_every_token_is_counted_and_left_out_ones_are_named(
    fallback_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    pieces = ["▁the", "ca", "dog", "a</s>b", "a▁b", "<0x41>", "ดด", "xy"]
    others = [("<s>", 3), ("</s>", 3), ("<unk>", 2), ("<mask>", 4), ("old", 5), ("<0x00>", 6)]
    path = write_pieces(tmp_path / "m.model", pieces, others=others)
    grown = MergeTokenizer(path, max_tokens=1).extend(fallback_tokenizer)
    assert grown.expansion.extender["report"] == {
        "taken": 1,
        "in_base": 1,
        "left_out": {
            "special": 3,
            "user-defined": 1,
            "unused": 1,
            "byte": 1,
            PROTOCOL: 1,
            UNSPELLABLE: 2,
            UNREACHABLE: 2,
            BEYOND: 1,
        },
        "left_out_tokens": {
            PROTOCOL: ["a</s>b"],
            UNSPELLABLE: ["a▁b", "<0x41>"],
            UNREACHABLE: ["dog", "ดด"],
        },
    }


@pytest.mark.parametrize(("limit", "expected"), [(1, ["ca"]), (2, ["ca", "cat"]), (9, None)])
def test_max_tokens_takes_the_first_with_what_they_are_built_from(
    limit: int,
    expected: list[str] | None,
    fallback_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    grown = merged(fallback_tokenizer, tmp_path, ["cat", "ca", "ing"], max_tokens=limit)
    assert tokens_of(grown) == (expected or ["ca", "ing", "cat"])


def test_scripts_keep_tokens_of_these_scripts_alone(
    fallback_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    pieces = ["ca", "ก", "▁ก", "กa", "..", "д"]
    grown = merged(fallback_tokenizer, tmp_path, pieces, scripts=["Thai"])
    assert tokens_of(grown) == ["ก", "▁ก"]


def test_sentencepiece_pieces_are_spelled_in_bytes_for_a_byte_level_base(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    grown = merged(tokenizer, tmp_path, ["zq", "▁zq", "é", "z▁q", "z1"])
    assert tokens_of(grown) == ["zq", "Ġzq", "Ã©"]
    assert [token.surface for token in grown.expansion.tokens] == ["zq", " zq", "é"]
    # GPT-2's pre-tokenizer never leaves these in one word.
    assert grown.expansion.extender["report"]["left_out_tokens"][CUT] == ["z▁q", "z1"]


def byte_level_folder(folder: Path) -> str:
    other = make_tokenizer().train_new_from_iterator([THAI] * 5, 330)
    other.save_pretrained(folder)
    return str(folder)


def test_parts_of_characters_are_taken_between_byte_level_vocabularies(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    folder = byte_level_folder(tmp_path)
    grown = MergeTokenizer(folder).extend(tokenizer)
    assert any("�" in token.surface for token in grown.expansion.tokens)
    # Nothing of the base's Latin merges stands in the way: the other's cut of Thai comes out.
    assert grown.tokenizer.tokenize(THAI) == load_tokenizer(folder).tokenize(THAI)


def test_scripts_take_the_parts_of_characters_that_their_tokens_hold(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    folder = byte_level_folder(tmp_path)
    thai = MergeTokenizer(folder, scripts=["Thai"]).extend(tokenizer)
    assert tokens_of(thai) == tokens_of(MergeTokenizer(folder).extend(tokenizer))
    with pytest.raises(ValueError, match="no token that the base lacks"):
        MergeTokenizer(folder, scripts=["Han"]).extend(tokenizer)


def test_parts_of_characters_are_named_where_the_base_spells_characters(
    fallback_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    other = make_tokenizer().train_new_from_iterator(["aé bé cé dé"], 258)
    other.save_pretrained(tmp_path)
    grown = MergeTokenizer(str(tmp_path)).extend(fallback_tokenizer)
    assert tokens_of(grown) == ["é"]
    assert {"Ã", "©"} <= set(grown.expansion.extender["report"]["left_out_tokens"][UNSPELLABLE])


WORDS = st.lists(st.text("inabก", min_size=2, max_size=6), unique=True, max_size=25)
FALLBACK = make_fallback_tokenizer()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=WORDS, texts=st.lists(st.text("inabก <s>/\n", max_size=40), max_size=20))
def test_no_text_gets_more_tokens_and_every_text_decodes_as_before(
    words: list[str], texts: list[str], tmp_path: Path
) -> None:
    old = backend(FALLBACK)
    new = backend(merged(FALLBACK, tmp_path, ["ก", "bb", *words]).tokenizer)
    for text in texts:
        before, after = old.encode(text).ids, new.encode(text).ids
        assert len(after) <= len(before)
        assert new.decode(after) == old.decode(before)


def test_the_manifest_tells_which_file_was_merged(
    fallback_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    grown = merged(fallback_tokenizer, tmp_path, ["ca"])
    path = str(tmp_path / "m.model")
    assert MergeTokenizer(path).has_built(grown.expansion)
    assert json.loads(json.dumps(MergeTokenizer(path).arguments()))["other"] == path
    write_pieces(tmp_path / "m.model", ["ca", "cat"])
    assert not MergeTokenizer(path).has_built(grown.expansion)


def test_a_merged_tokenizer_may_move_but_not_change(
    fallback_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    built = merged(fallback_tokenizer, tmp_path, ["ca"]).expansion
    (tmp_path / "m.model").rename(tmp_path / "moved.model")
    moved = str(tmp_path / "moved.model")
    assert MergeTokenizer(moved).has_built(built)
    assert not MergeTokenizer(moved, max_tokens=1).has_built(built)


def test_a_unigram_folder_gives_its_likeliest_tokens_first(
    fallback_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    vocab = [("<unk>", 0.0), ("▁", -2.0), ("cat", -5.0), ("ca", -4.0), ("ing", -3.0)]
    other = load_tokenizer_of(models.Unigram(vocab, unk_id=0, byte_fallback=False), tmp_path)
    assert tokens_of(MergeTokenizer(other).extend(fallback_tokenizer)) == ["ing", "ca", "cat"]


def load_tokenizer_of(model: models.Model, folder: Path) -> str:
    from tokenizers import decoders, pre_tokenizers

    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder)
    return str(folder)


def test_nothing_new_is_refused(
    fallback_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=rf"no token that the base lacks.*'{UNREACHABLE}': 1"):
        merged(fallback_tokenizer, tmp_path, ["▁the", "in", "dog"])


def test_other_kinds_are_refused_by_name(
    fallback_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    word_piece = load_tokenizer_of(
        models.WordPiece({"<unk>": 0, "ca": 1}, unk_token="<unk>"), tmp_path
    )
    words = write_pieces(tmp_path / "w.bin", ["ca"], model_type=3)
    for path, message in ((word_piece, "holds a WordPiece model"), (words, "a word or character")):
        with pytest.raises(ValueError, match=message):
            MergeTokenizer(path).extend(fallback_tokenizer)


def test_a_file_that_is_no_model_and_a_missing_one_are_refused(
    fallback_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    (tmp_path / "x.model").write_text("no model")
    with pytest.raises(ValueError, match="is not a SentencePiece model"):
        MergeTokenizer(str(tmp_path / "x.model")).extend(fallback_tokenizer)
    with pytest.raises(FileNotFoundError):
        MergeTokenizer(str(tmp_path / "no" / "where.model")).extend(fallback_tokenizer)


def test_settings_are_checked_before_any_work() -> None:
    with pytest.raises(TypeError, match="path of a tokenizer"):
        MergeTokenizer(7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="empty string"):
        MergeTokenizer("")
    with pytest.raises(ValueError, match="max_tokens must be at least 1"):
        MergeTokenizer("x", max_tokens=0)
    with pytest.raises(ValueError, match="Unknown script"):
        MergeTokenizer("x", scripts=["Klingon"])


@pytest.fixture(scope="module")
def chinese(assets: Path) -> tuple[PreTrainedTokenizerBase, ExpandedTokenizer]:
    base = load_tokenizer(assets / "tokenizers/llama2")
    return base, MergeTokenizer(str(assets / "tokenizers/chinese-llama-sp20k")).extend(base)


@pytest.mark.slow
@pytest.mark.assets
def test_the_published_chinese_tokens_are_reached_or_named(
    chinese: tuple[PreTrainedTokenizerBase, ExpandedTokenizer],
) -> None:
    report = chinese[1].expansion.extender["report"]
    # The published merge of the two has 49,953 tokens.
    assert report["left_out"] == {"special": 3, UNREACHABLE: 344}
    assert 32_000 + report["taken"] + report["left_out"][UNREACHABLE] == 49_953
    assert len(chinese[1].tokenizer) == 32_000 + report["taken"] == 49_609
    named = report["left_out_tokens"][UNREACHABLE]
    assert len(set(named)) == 344
    # The base has 越 and 来, and the other neither 越来 nor 来越.
    assert "越来越" in named


@pytest.mark.slow
@pytest.mark.assets
def test_merged_real_vocabularies_keep_old_text_and_shorten_chinese(
    chinese: tuple[PreTrainedTokenizerBase, ExpandedTokenizer], assets: Path
) -> None:
    base, grown = chinese
    lines = list(CHINESE)
    with (assets / "text/ntrex_en_th_vi.jsonl").open(encoding="utf-8") as rows:
        for row in list(rows)[::4]:
            record = json.loads(row)
            lines += [record["en"], record["th"], record["vi"]]
    old, new = backend(base), backend(grown.tokenizer)
    before = [encoding.ids for encoding in old.encode_batch_fast(lines)]
    after = [encoding.ids for encoding in new.encode_batch_fast(lines)]
    assert all(len(b) >= len(a) for b, a in zip(before, after, strict=True))
    assert new.decode_batch(after) == old.decode_batch(before)
    count = [sum(map(len, ids[: len(CHINESE)])) for ids in (before, after)]
    assert count[1] < 0.5 * count[0]
    # The base and its own file cut runs of blanks differently.
    plain = [k for k, line in enumerate(lines) if "  " not in line]
    processor = SentencePieceProcessor(model_proto=grown_model(grown))
    cut_alike = processor.encode([lines[k] for k in plain], add_bos=True)
    assert cut_alike == [after[k] for k in plain]
