from __future__ import annotations

import multiprocessing

import pytest

from lightning_vocab.vocabulary.measuring.fertility import encode_batch
from tests.conftest import TEXTS, make_tokenizer

TOKENIZER, MANY = make_tokenizer(), list(TEXTS) * 300


def _tokenise() -> None:
    assert len(encode_batch(TOKENIZER, MANY)) == len(MANY)


@pytest.mark.parametrize("switch", ["true", "false", None])
def test_a_forked_child_of_a_process_that_has_tokenised_can_tokenise(
    monkeypatch: pytest.MonkeyPatch, switch: str | None
) -> None:
    if switch is None:
        monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    else:
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", switch)
    _tokenise()
    child = multiprocessing.get_context("fork").Process(target=_tokenise, daemon=True)
    child.start()
    child.join(timeout=30)
    ended = child.exitcode
    child.kill()  # one that waits for threads that it has not would never end
    assert ended == 0
