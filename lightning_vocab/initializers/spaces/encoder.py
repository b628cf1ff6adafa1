"""Mean-pooled states of an encoder over the texts of tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from typing_extensions import override

from lightning_vocab.initializers.base import RowContext
from lightning_vocab.initializers.spaces.base import TokenVectors
from lightning_vocab.initializers.spaces.cache import SavedSpace, file_identity
from lightning_vocab.initializers.spaces.tokens import parted, surfaces_of, words_of

_MAX_TOKENS = 512


class EncoderSpace(SavedSpace):
    """Last hidden states of an encoder over a token's text, averaged where the mask is 1.

    Start and end tokens of the encoder count. Spaces around the text are dropped, so ``" cat"`` and
    ``"cat"`` have one vector. A token that is no whole text (U+FFFD, spaces alone) is unknown, and
    so is a special token of the base. Of a model that encodes and decodes, the encoder is taken.
    It runs in float32, without gradients and without dropout.

    Cost: each different text once through the encoder, about 5 tokens each. Memory: the encoder's
    weights in float32, the states of a batch, and ``4 * (num_new + num_old) * width`` bytes.

    Args:
        model: A local folder or a hub id of any model that `transformers.AutoModel` loads.
        batch_size: Texts in one forward pass, of similar length.
        device: Where the encoder runs; that of the base's rows if not given.
        cache_dir: Folder to keep the vectors in; None keeps nothing.

    Raises:
        ValueError: If the model is an empty string or the batch is empty.

    Example:
        >>> EncoderSpace("intfloat/multilingual-e5-small").batch_size
        256
    """

    def __init__(
        self,
        model: str,
        batch_size: int = 256,
        device: str | None = None,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__(cache_dir)
        if not model:
            raise ValueError("Expected the folder or hub id of an encoder, got an empty string.")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1 text, got {batch_size}.")
        self.model = model
        self.batch_size = batch_size
        self.device = device

    @override
    def identity(self, context: RowContext) -> dict[str, Any]:
        """The model with the files of its folder or its revision on the hub."""
        folder = Path(self.model).expanduser()
        if folder.is_dir():
            files = sorted(str(path) for path in folder.iterdir() if path.is_file())
            return {"model": self.model, "files": [file_identity(path) for path in files]}
        revision = getattr(AutoConfig.from_pretrained(self.model), "_commit_hash", None)
        return {"model": self.model, "revision": revision}

    @override
    @torch.no_grad()
    def compute(self, context: RowContext) -> TokenVectors:
        """Mean states of all tokens that are whole texts.

        Raises:
            ValueError: If the encoder's tokenizer has no padding token, or no token is a whole
                text.
        """
        new, old = surfaces_of(context)
        words = words_of([*new, *old])
        distinct = sorted({word for word in words if word is not None}, key=_by_length)
        if not distinct:
            raise ValueError("EncoderSpace needs tokens that are whole texts, and there is none.")
        encoded = self._encoded(distinct, torch.device(self.device or context.input_rows.device))
        place = {word: number for number, word in enumerate(distinct)}
        at = torch.tensor([-1 if word is None else place[word] for word in words])
        vectors = encoded[at] * (at >= 0).unsqueeze(1)
        return parted(context, vectors, vectors.any(dim=1))

    def _encoded(self, texts: list[str], device: torch.device) -> Tensor:
        tokenizer = AutoTokenizer.from_pretrained(self.model)
        if tokenizer.pad_token is None:
            raise ValueError(
                f"The tokenizer of {self.model!r} has no padding token, so its texts cannot be put "
                "into batches: take an encoder, or set a padding token in its folder."
            )
        # Weights that the folder lacks (a pooler) are drawn at random while loading.
        with torch.random.fork_rng(devices=[]):
            model = AutoModel.from_pretrained(self.model, dtype=torch.float32)
        encoder = model.get_encoder() if model.config.is_encoder_decoder else model
        encoder.to(device).eval()
        parts = [
            _mean_states(encoder, tokenizer, texts[first : first + self.batch_size])
            for first in range(0, len(texts), self.batch_size)
        ]
        return torch.cat(parts)


def _mean_states(
    encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]
) -> Tensor:
    batch = tokenizer(
        texts,
        padding=True,
        truncation=True,
        max_length=min(tokenizer.model_max_length, _MAX_TOKENS),
        return_tensors="pt",
    ).to(encoder.device)
    states = encoder(**batch).last_hidden_state.float()
    mask = batch["attention_mask"].unsqueeze(2).to(states)
    # An encoder that makes nothing of a text would divide by zero.
    means: Tensor = (states * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1)
    return means.cpu()


def _by_length(text: str) -> tuple[int, str]:
    return len(text), text
