"""The bytes of tokens, against the bytes of the text that they were cut from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lightning_vocab.vocabulary import AddTokens, load_tokenizer
from lightning_vocab.vocabulary.measuring.token_bytes import TokenBytes, token_bytes
from tests.conftest import case, make_tokenizer

BYTE_LEVEL = make_tokenizer()
BYTES_OF_BYTE_LEVEL = token_bytes(BYTE_LEVEL)
UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def counted(tokenizer: PreTrainedTokenizerBase, sizes: TokenBytes, text: str) -> int:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    return int(sizes.of_id[ids].sum()) - (sizes.prefix if ids else 0)


def with_fallback() -> PreTrainedTokenizerFast:
    """A SentencePiece-type BPE of the letters a to e, the blank, three merges and all bytes."""
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    names += ["▁", *"abcde", "▁a", "bc", "▁abc"]
    merges = [("▁", "a"), ("b", "c"), ("▁a", "bc")]
    model = models.BPE(
        {name: id for id, name in enumerate(names)},
        merges,
        unk_token="<unk>",
        byte_fallback=True,
        fuse_unk=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    steps = [
        decoders.Replace("▁", " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ]
    tokenizer.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


FALLBACK = with_fallback()
BYTES_OF_FALLBACK = token_bytes(FALLBACK)


@given(UNICODE)
def test_bytes_of_byte_level_tokens_add_up_to_those_of_any_text(text: str) -> None:
    assert counted(BYTE_LEVEL, BYTES_OF_BYTE_LEVEL, text) == len(text.encode())


@given(
    st.text(st.sampled_from("abcde é▁ท\n"), max_size=30).filter(lambda text: text[:1] not in " ▁")
)
def test_bytes_of_tokens_with_byte_fallback_add_up_to_those_of_any_text(text: str) -> None:
    # The tokenizer itself takes the character ▁ for a blank.
    assert counted(FALLBACK, BYTES_OF_FALLBACK, text) == len(text.replace("▁", " ").encode())


def test_special_tokens_are_no_bytes_and_protocol_tokens_are_their_content() -> None:
    grown = AddTokens(["<|sensor|>"]).extend(BYTE_LEVEL, []).tokenizer
    sizes = token_bytes(grown)
    assert sizes.of_id[grown.convert_tokens_to_ids(["<|end|>", "<|sensor|>"])].tolist() == [0, 10]
    assert counted(grown, sizes, "a<|sensor|>b") == 12


@pytest.mark.slow
@pytest.mark.assets
@pytest.mark.parametrize(
    "name",
    [
        case("qwen2.5", quick=False),
        case("gpt2", quick=False),
        case("llama3", quick=False),
        case("llama2", quick=True),
        case("phi3-mini", quick=False),
        case("storyllamas-4096", quick=False),
    ],
)
def test_bytes_of_real_tokens_add_up_to_those_of_news_in_three_languages(
    name: str, assets: Path
) -> None:
    tokenizer = load_tokenizer(str(assets / "tokenizers" / name))
    sizes = token_bytes(tokenizer)
    lines = (assets / "text" / "ntrex_en_th_vi.jsonl").read_text(encoding="utf-8").splitlines()
    for line in lines[:200]:
        row = json.loads(line)
        for text in (row["en"], row["th"], row["vi"]):
            assert counted(tokenizer, sizes, text) == len(text.encode())


@pytest.mark.assets
@pytest.mark.slow
@pytest.mark.parametrize(("name", "share"), [("t5-small", 0.02), ("chinese-llama-sp20k", 0.02)])
def test_bytes_of_a_lossy_tokenizer_are_near_those_of_a_text_that_it_knows(
    name: str, share: float, assets: Path
) -> None:
    tokenizer = load_tokenizer(str(assets / "tokenizers" / name))
    sizes = token_bytes(tokenizer)
    lines = (assets / "text" / "ntrex_en_th_vi.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["en"] for line in lines[:200]]
    found = sum(counted(tokenizer, sizes, text) for text in texts)
    assert found == pytest.approx(sum(len(text.encode()) for text in texts), rel=share)
