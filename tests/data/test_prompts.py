from __future__ import annotations

from transformers import PreTrainedTokenizerFast

from lightning_vocab.data.prompts import CollatePrompts, tokenise_prompts


def test_prompt_begins_with_the_start_token(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.encode("the cat", add_special_tokens=False)
    assert tokenise_prompts(tokenizer, ["the cat"]) == [[tokenizer.bos_token_id, *ids]]


def test_prompts_end_together_and_padding_is_masked() -> None:
    batch = CollatePrompts(pad_id=9)([[1, 2, 3], [4]])
    assert batch["input_ids"].tolist() == [[1, 2, 3], [9, 9, 4]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
