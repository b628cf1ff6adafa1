"""A SentencePiece BPE base that is trained in memory."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerBase

from tests.vocabulary.sentencepiece.pieces import ENGLISH, load_beside, trained


@pytest.fixture(scope="module")
def content() -> bytes:
    return trained(ENGLISH * 3, 300, "bpe")


@pytest.fixture(scope="module")
def base(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    folder = tmp_path_factory.mktemp("base")
    return load_beside(folder, content, "tokenizer.model", tokenizer_class="LlamaTokenizer")
