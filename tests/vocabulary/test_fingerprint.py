from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lightning_vocab.vocabulary import fingerprint, load_tokenizer
from tests.conftest import case, make_tokenizer

FOLDERS = (
    case("lm/stories260K", quick=True),
    case("lm/english-4M", quick=True),
    case("tokenizers/gpt2", quick=False),
    case("tokenizers/qwen2.5", quick=False),
    case("tokenizers/llama2", quick=False),
    case("tokenizers/phi3-mini", quick=False),
    case("tokenizers/storyllamas-4096", quick=True),
    case("tokenizers/t5-small", quick=False),
    case("tokenizers/chinese-llama-sp20k", quick=True),
)


@pytest.mark.assets
@pytest.mark.parametrize("folder", FOLDERS)
def test_fingerprint_survives_saving_and_loading(folder: str, assets: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(assets / folder)
    tokenizer.save_pretrained(str(tmp_path))
    assert fingerprint(AutoTokenizer.from_pretrained(tmp_path)) == fingerprint(tokenizer)


def test_truncation_and_padding_of_a_call_do_not_count(tokenizer: PreTrainedTokenizerFast) -> None:
    before = fingerprint(tokenizer)
    tokenizer.pad_token = "<|end|>"
    with_pad = fingerprint(tokenizer)
    tokenizer(["a b c", "a"], truncation=True, max_length=2, padding=True)
    assert fingerprint(tokenizer) == with_pad != before


@pytest.mark.parametrize("change", ["token", "template", "special"])
def test_a_change_of_meaning_changes_the_fingerprint(
    change: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    if change == "token":
        tokenizer.add_tokens(["<|tool|>"])
    elif change == "template":
        tokenizer.chat_template = "{{ messages }}"
    else:
        tokenizer.pad_token = "<|end|>"
    assert fingerprint(tokenizer) != fingerprint(make_tokenizer())


def test_another_merge_order_changes_the_fingerprint() -> None:
    assert fingerprint(make_tokenizer(299)) != fingerprint(make_tokenizer(300))


def test_a_tokenizer_without_backend_is_refused() -> None:
    from transformers.models.ctrl.tokenization_ctrl import CTRLTokenizer

    tokenizer = CTRLTokenizer.__new__(CTRLTokenizer)
    with pytest.raises(TypeError, match="CTRLTokenizer has no `tokenizers` backend"):
        fingerprint(tokenizer)
