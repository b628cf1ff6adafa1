from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_vocab.initializers import Mean, RowContext
from lightning_vocab.initializers.dictionary import DictionaryAlignment, DictionaryUse
from lightning_vocab.vocabulary import ContinuedBPE, load_tokenizer
from tests.initializers.contexts import id_of, make_context

CAT, DOG, S = id_of("cat"), id_of("dog"), id_of("s")
THAI = ("แมว", "หมา", "แมวหมา")


def write(folder: Path, *pairs: tuple[str, str]) -> str:
    path = folder / "pairs.tsv"
    path.write_text("".join(f"{base}\t{new}\n" for base, new in pairs), encoding="utf-8")
    return str(path)


def matrices(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    drawn = torch.randn(2, 306, 4, generator=torch.Generator().manual_seed(3))
    drawn[:, 300:] = 1e6  # padded rows
    return drawn[0].to(dtype), drawn[1].to(dtype)


def row_of(rows: Tensor, text: str) -> Tensor:
    """Mean of the pieces of a text, in the shorter of its two forms."""
    tokenizer = make_context(rows).tokenizer
    cuts = [tokenizer.encode(form) for form in (f" {text}", text)]
    return rows[min(cuts, key=len)].float().mean(dim=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
def test_rows_are_those_of_the_translations(tied: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    pairs = write(tmp_path, ("cat", "แมว"), ("dogs", "หมา"), ("the", "หมา"))
    inputs, outputs = matrices(dtype)
    bias = torch.arange(306.0)
    words = (" แมว ", "หมา", "catdog")
    context = make_context(inputs, None if tied else outputs, words=words, output_bias=bias)
    method = DictionaryAlignment(pairs, noise=0, fallback=Mean(noise=0))
    made = method.rows(context)
    assert (made[1] is None) == tied
    for rows, base in zip(made, (inputs, outputs), strict=True):
        if rows is not None:
            pair = (row_of(base, "dogs") + row_of(base, "the")) / 2
            expected = [row_of(base, "cat"), pair, base[:300].float().mean(dim=0)]
            torch.testing.assert_close(rows, torch.stack(expected))
    column = bias.unsqueeze(1)
    expected = [row_of(column, "cat"), (row_of(column, "dogs") + row_of(column, "the")) / 2]
    assert method.bias(context).tolist() == pytest.approx([*map(float, expected), 149.5])


def test_what_the_dictionary_had_is_said(tmp_path: Path) -> None:
    pairs = write(tmp_path, ("cat", "แมว"), ("Cat", "แมว"), ("catdog", "CatDog"), ("a", "b"))
    method = DictionaryAlignment(pairs, fallback=Mean())
    method.rows(make_context(matrices()[0], words=[" แมว", "catdog"]))
    assert str(method.coverage) == (
        "DictionaryAlignment made 1 of 2 new tokens (50.0%); Mean made the other 1: 'catdog'."
    )
    assert method.use == DictionaryUse(4, num_equal=1, num_translations=2, num_unknown=0)
    assert str(method.use) == (
        "4 pairs (1 left out: the same word on both sides); 2 translations of new tokens "
        "(0 left out: the base cannot write them)."
    )


def test_a_translation_with_an_untrained_row_is_left_out_and_counted(tmp_path: Path) -> None:
    rows = matrices()[0]
    rows[CAT] = 0
    pairs = write(tmp_path, ("cat", "แมว"), ("dog", "แมว"), ("cat", "หมา"))
    method = DictionaryAlignment(pairs, noise=0, fallback=Mean(noise=0))
    made = method.rows(make_context(rows, words=["แมว", "หมา"]))[0]
    torch.testing.assert_close(made[0], row_of(rows, "dog"))
    assert method.use is not None
    assert (method.use.num_translations, method.use.num_unknown) == (2, 1)
    assert method.coverage is not None
    assert method.coverage.missing == ("หมา",)


def test_without_a_fallback_a_token_that_is_not_in_it_is_an_error(tmp_path: Path) -> None:
    method = DictionaryAlignment(write(tmp_path, ("cat", "แมว"), ("dog", "dog")))
    with pytest.raises(ValueError, match=r"nothing to make 1 of 2 new tokens from.*'catdog'"):
        method.rows(make_context(matrices()[0], words=["แมว", "catdog"]))


def test_a_translation_in_which_a_new_token_fires_is_cut_as_the_base_cuts_it(
    tmp_path: Path,
) -> None:
    rows = matrices()[0]
    method = DictionaryAlignment(write(tmp_path, ("catdog", "แมว")), noise=0, fallback=Mean())
    made = method.rows(make_context(rows, words=["catdog", "แมว"]))[0]
    torch.testing.assert_close(made[1], rows[[CAT, DOG]].mean(dim=0))


def test_noise_has_the_length_asked_for_and_keeps_equal_tokens_apart(tmp_path: Path) -> None:
    rows, head = torch.randn(300, 2000), torch.randn(300, 2000)
    pairs = write(tmp_path, ("cat", THAI[0]), ("cat", THAI[1]))
    context = make_context(rows, head, words=(*THAI[:2], "catdog"))
    fallback = Mean(noise=0)
    plain = DictionaryAlignment(pairs, noise=0, fallback=fallback).rows(context)
    noisy = DictionaryAlignment(pairs, noise=0.2, fallback=fallback).rows(context)
    moves = []
    for before, after in zip(plain, noisy, strict=True):
        assert before is not None
        assert after is not None
        moves.append(after - before)
        share = moves[-1][:2].norm(dim=1) / before[:2].norm(dim=1)
        assert share.tolist() == pytest.approx([0.2, 0.2], rel=0.1)
        assert torch.equal(before[2], after[2])  # the fallback's row
    assert not torch.equal(moves[0][0], moves[0][1])
    assert not torch.allclose(moves[0] / plain[0], moves[1] / head[CAT])


def test_the_seed_decides_and_order_does_not(tmp_path: Path) -> None:
    pairs = write(tmp_path, ("cat", THAI[0]), ("dogs", THAI[1]), ("mat", THAI[2]))
    rows = matrices()[0]
    first, again = (
        DictionaryAlignment(pairs).rows(make_context(rows, words=THAI, seed=4))[0] for _ in "ab"
    )
    assert torch.equal(first, again)
    clean = DictionaryAlignment(pairs, noise=0)
    forward = clean.rows(make_context(rows, words=THAI))[0]
    backward = clean.rows(make_context(rows, words=THAI[::-1]))[0]
    torch.testing.assert_close(forward, backward.flip(0))


def test_old_rows_do_not_move(tmp_path: Path) -> None:
    rows, head = matrices()
    before = rows.clone(), head.clone()
    method = DictionaryAlignment(write(tmp_path, ("cat", "แมว")), fallback=Mean())
    method.rows(make_context(rows, head, words=THAI))
    assert torch.equal(rows, before[0])
    assert torch.equal(head, before[1])


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"noise must be 0 or positive: got -1"):
        DictionaryAlignment("pairs.tsv", noise=-1)
    with pytest.raises(ValueError, match="new_side must be right or left: got 'both'"):
        DictionaryAlignment("pairs.tsv", new_side="both")  # type: ignore[arg-type]


@pytest.mark.assets
@pytest.mark.slow
def test_a_real_dictionary_covers_a_part_of_real_thai_tokens(assets: Path) -> None:
    tokenizer = load_tokenizer(assets / "tokenizers" / "qwen2.5")
    lines = (assets / "text" / "ntrex_en_th_vi.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["th"] for line in lines]
    grown = ContinuedBPE(num_new_tokens=1000).extend(tokenizer, texts, base_rows=151936)
    rows = torch.randn(151936, 2)
    context = RowContext(
        grown.expansion, grown.tokenizer, rows, None, None, torch.Generator().manual_seed(0)
    )
    method = DictionaryAlignment(
        assets / "dictionaries" / "en-th.tsv", noise=0, fallback=Mean(noise=0)
    )
    made = method.rows(context)[0]
    assert method.coverage is not None
    assert 0.02 < method.coverage.share < 0.5  # most tokens of this size are parts of words
    missing = set(method.coverage.missing)
    surfaces = [token.surface for token in context.expansion.tokens]
    place = next(place for place, text in enumerate(surfaces) if text not in missing)
    alone = method.rows(replace(context.only([place]), model=None))[0]
    assert torch.equal(alone[0], made[place])
