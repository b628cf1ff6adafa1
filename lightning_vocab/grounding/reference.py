"""Spaces in which tokens lie as their descriptions do, to compare new rows with."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightning_vocab.grounding.pairs import Pair
from lightning_vocab.initializers.base import RowContext
from lightning_vocab.initializers.spaces.encoder import EncoderSpace
from lightning_vocab.initializers.spaces.states import States, windows
from lightning_vocab.loss import evaluating
from lightning_vocab.rows.locate import find_split
from lightning_vocab.rows.split import base_view
from lightning_vocab.vocabulary.base_check import is_grown_base
from lightning_vocab.vocabulary.expansion import ExpandedTokenizer
from lightning_vocab.vocabulary.measuring.fertility import encode_batch
from lightning_vocab.vocabulary.pieces import Ids, PieceTable

_BATCH_TOKENS = 4096
_LONGEST = 256
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, eq=False)
class DescribedTokens:
    """New tokens and the descriptions of the pairs that they stand in.

    Args:
        ids: The tokens, in order of first appearance, ``(num_tokens,)``.
        descriptions: Every description once.
        token: Place in ``ids`` of the token of each link, ``(num_links,)``.
        description: Place in ``descriptions`` of what it is linked with, ``(num_links,)``.
    """

    ids: Tensor
    descriptions: tuple[str, ...]
    token: Tensor
    description: Tensor

    @classmethod
    def of(cls, pairs: Sequence[Pair], expanded: ExpandedTokenizer) -> DescribedTokens:
        """Link each new token once with each pair that it stands in.

        Args:
            pairs: The pairs; tokens of theirs that are not new are passed over.
            expanded: The grown tokenizer with its manifest.

        Raises:
            ValueError: If none of their tokens is new.
        """
        known = {token.surface: token.id for token in expanded.expansion.tokens}
        texts = list(dict.fromkeys(pair.description for pair in pairs))
        place = {text: number for number, text in enumerate(texts)}
        found = [
            (known[token], place[pair.description])
            for pair in pairs
            for token in dict.fromkeys(pair.tokens)
            if token in known
        ]
        if not found:
            raise ValueError(
                f"None of the tokens of {len(pairs)} pairs is one of the {len(known)} new tokens: "
                "give the pairs that the vocabulary was grown for."
            )
        ids = list(dict.fromkeys(id for id, _ in found))
        row = {id: number for number, id in enumerate(ids)}
        links = torch.tensor([(row[id], text) for id, text in found])
        return cls(torch.tensor(ids), tuple(texts), links[:, 0], links[:, 1])

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of ids, descriptions and links: the same for the same pairs alone."""
        links = torch.stack([self.token, self.description]).tolist()
        content = json.dumps([self.ids.tolist(), self.descriptions, links])
        return hashlib.sha256(content.encode()).hexdigest()

    def mean(self, vectors: Tensor) -> Tensor:
        """For each token the mean over its descriptions' vectors ``(num_descriptions, width)``."""
        sums = torch.zeros(len(self.ids), vectors.shape[1], dtype=vectors.dtype)
        sums.index_add_(0, self.token, vectors[self.description])
        return sums / torch.bincount(self.token).unsqueeze(1)


@torch.no_grad()
def state_vectors(
    model: PreTrainedModel,
    expanded: ExpandedTokenizer,
    base_tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    layer: int | None = None,
) -> Tensor:
    """Mean hidden state of the base over each text, each dimension standardised over the texts.

    The base reads the text with its own tokenizer and its old rows alone, behind its start token,
    so no new row has a part in it. Where the base has grown already (`is_grown_base`), the pieces
    of a new token stand in its place. A few dimensions of hidden states are far larger than all
    others, so that their raw cosines say little; hence the standardisation.

    Cost: each text once through the backbone. Memory: the states of 4,096 tokens at all layers.

    Args:
        model: The expanded model, with a backbone of its own.
        expanded: The grown tokenizer with its manifest.
        base_tokenizer: The tokenizer of the base.
        texts: The texts; those longer than 256 tokens are read in parts.
        layer: Index of the hidden states; None is the middle layer.

    Returns:
        ``(num_texts, width)`` on the CPU in float32; zeros for a text without a token.

    Raises:
        ValueError: If the model is not expanded or has no such layer.
    """
    split = find_split(model)
    if split is None:
        raise ValueError(
            f"Expected an expanded model, got {type(model).__name__} without new rows."
        )
    old = split[0].rows.old.detach()
    generator = torch.Generator()
    context = RowContext(expanded.expansion, base_tokenizer, old, None, None, generator, model)
    states = States(model, context, layer, _BATCH_TOKENS)
    flat, lengths = _base_ids(expanded, base_tokenizer, texts)
    owners = np.repeat(np.arange(len(texts)), lengths)
    room = getattr(model.config.get_text_config(), "max_position_embeddings", None) or _LONGEST + 1
    sums, is_read = states.empty(len(texts)), lengths > 0
    with base_view(model), evaluating(model):
        for ids, owner in windows(flat, lengths, owners, min(_LONGEST, room - 1)):
            for first, found in states.of(ids):
                # A row holds one text, or a part of one.
                sums.index_add_(0, owner[first : first + len(found), 0], found.sum(dim=1))
    means = sums / torch.from_numpy(lengths).clamp_min(1).unsqueeze(1)
    return _standardised(means, torch.from_numpy(is_read))


def _base_ids(
    expanded: ExpandedTokenizer, base_tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> tuple[Ids, Ids]:
    """Ids of all texts, none of them new, and the number of ids of each text."""
    encoded = encode_batch(base_tokenizer, list(texts))
    lengths = np.array([len(ids) for ids in encoded], dtype=np.int64)
    flat = np.array([id for ids in encoded for id in ids], dtype=np.int64)
    if not is_grown_base(expanded, base_tokenizer):
        return flat, lengths
    table = PieceTable(expanded.expansion.tokens, expanded.expansion.num_rows)
    flat, ends = table.expand(flat)
    return flat, np.diff(np.concatenate([[0], ends])[np.cumsum(lengths)], prepend=0)


class DescriptionEncoder(EncoderSpace):
    """An encoder that reads descriptions: the means of its last hidden states, as they are."""

    @torch.no_grad()
    def encode(self, texts: Sequence[str], device: torch.device) -> Tensor:
        """Vectors of texts, ``(num_texts, width)`` on the CPU in float32.

        Args:
            texts: The texts.
            device: Where the encoder runs, unless it was told another.

        Raises:
            ValueError: If the encoder's tokenizer has no padding token.
        """
        return self._encoded(list(texts), torch.device(self.device or device))


def word_vectors(texts: Sequence[str]) -> Tensor:
    """Counts of words, the rare ones weighing more: a space that no model has a part in.

    A word is a stretch of letters and digits in lower case, its weight ``log(n / m)`` where ``m``
    of the ``n`` texts hold it. Text that is written without blanks has few words in this sense.

    Memory: four bytes for each text and different word.

    Args:
        texts: The texts, each different from the others.

    Returns:
        ``(num_texts, num_words)`` in float32; zeros for a text without a word of its own.
    """
    counts = [Counter(_WORD.findall(text.lower())) for text in texts]
    place = {word: i for i, word in enumerate(dict.fromkeys(w for each in counts for w in each))}
    rows = torch.tensor([i for i, each in enumerate(counts) for _ in each], dtype=torch.long)
    columns = torch.tensor([place[w] for each in counts for w in each], dtype=torch.long)
    values = torch.tensor([n for each in counts for n in each.values()], dtype=torch.float32)
    weights = (len(texts) / torch.bincount(columns, minlength=len(place))).log()
    vectors = torch.zeros(len(texts), max(1, len(place)))
    vectors[rows, columns] = values * weights[columns]
    return vectors


def _standardised(vectors: Tensor, is_known: Tensor) -> Tensor:
    """Known vectors less their mean, divided by their standard deviation; zeros elsewhere."""
    known = vectors[is_known]
    if not len(known):
        return torch.zeros_like(vectors)
    deviation = known.std(dim=0, correction=0)
    scale = torch.where(deviation > 0, 1 / deviation, 0)
    return (vectors - known.mean(dim=0)) * scale * is_known.unsqueeze(1)
