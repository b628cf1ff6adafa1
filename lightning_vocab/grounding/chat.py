"""Prompts as the message of a user, in the words of the tokenizer's chat template."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase


def check_chat(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make sure that there is a chat template.

    Raises:
        ValueError: If the tokenizer has none.
    """
    if tokenizer.chat_template is None:
        raise ValueError(
            "Expected a tokenizer with a chat template for chat=True, got one without: it belongs "
            "to a plain language model. Leave chat off, or set its chat_template."
        )


def as_chat(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[tuple[str, int]]:
    """Each prompt as a conversation up to where the model answers.

    Blanks at the end of a prompt are left out: they stand in front of an answer in running text.

    Args:
        tokenizer: A tokenizer with a chat template.
        prompts: The messages.

    Returns:
        The text of each conversation, with what the template itself puts in front (its own start
        token included), and the number of characters by which the prompt has moved in it.

    Raises:
        ValueError: If there is no chat template, or it changes a message.
    """
    check_chat(tokenizer)
    messages = [prompt.rstrip() for prompt in prompts]
    texts = tokenizer.apply_chat_template(
        [[{"role": "user", "content": message}] for message in messages],
        tokenize=False,
        add_generation_prompt=True,
    )
    found = []
    for text, message in zip(texts, messages, strict=True):
        kept = message.lstrip()  # templates that trim their messages are common
        place = text.rfind(kept)
        if place < 0:
            raise ValueError(
                f"The chat template changes its message: {message!r:.80} is not in {text!r:.200}."
            )
        found.append((text, place - (len(message) - len(kept))))
    return found
