"""Where the demo base begins: a new tokenizer and random weights, as a Hugging Face folder.

`python -m lightning_vocab.demo.start FOLDER` writes it; `recipes/pretrain_demo.yaml` trains it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lightning_vocab.demo.corpus import english

VOCAB_SIZE = 2_048
END_TOKEN = "<|endoftext|>"


def train_tokenizer(texts: Iterable[str], vocab_size: int = VOCAB_SIZE) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of the GPT-2 kind whose bos and eos are ``<|endoftext|>``, id 0.

    Args:
        texts: The text to learn merges from.
        vocab_size: Tokens in all: 256 bytes, the end token and the merges.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END_TOKEN, eos_token=END_TOKEN, model_max_length=512
    )


def start_model(seed: int = 7) -> LlamaForCausalLM:
    """The demo architecture with random weights: 1.45 million parameters, tied, context 512.

    Args:
        seed: Seed of the weights.
    """
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=None,
    )
    torch.manual_seed(seed)
    return LlamaForCausalLM(config)


def main(folder: str) -> None:
    """Write tokenizer and random weights.

    Args:
        folder: A folder that does not exist yet.

    Raises:
        FileExistsError: If it exists.
    """
    path = Path(folder)
    path.mkdir(parents=True)
    train_tokenizer(english("train")).save_pretrained(path)
    start_model().save_pretrained(path)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m lightning_vocab.demo.start FOLDER")
    main(sys.argv[1])
