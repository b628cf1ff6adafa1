"""How much each piece of a token counts in its row."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_vocab.initializers.base import PieceBags, RowContext

PieceWeights = Literal["uniform", "characters", "bytes", "position", "first", "last"]
"""Names of the ways to weight pieces; what each means stands at `piece_weights`."""

End = Literal["input", "output"]
"""Where a row is used: position means the opposite at the two ends."""

_UNDECODABLE = "\ufffd"


def piece_weights(context: RowContext, weights: PieceWeights, end: End) -> Tensor:
    """The weight of each piece of each new token, not normalised, ``(num_pieces,)``.

    With ``k`` pieces of a token, counted by ``i`` from 0:

    - ``uniform``: 1.
    - ``characters``: characters of the piece's text, 1 at least (a part of a character is one).
    - ``bytes``: bytes of the piece.
    - ``position``: input ``0.5 ** (k - 1 - i)``, output ``0.5 ** i`` (AdaptiVocab, arXiv
      2503.19693): an input row stands for a token that has been read to its end, an output row
      for one of which the first piece is to come.
    - ``first`` and ``last``: 1 for that piece, 0 for the others.

    Cost: one pass over the pieces; characters and bytes decode each different piece once.

    Args:
        context: The new tokens and their pieces.
        weights: Which of these.
        end: Which of the two directions of ``position``.
    """
    pieces = context.pieces
    place = torch.arange(len(pieces.ids), device=pieces.ids.device) - pieces.offsets[pieces.bag]
    from_end = pieces.counts[pieces.bag] - 1 - place
    match weights:
        case "uniform":
            return torch.ones_like(pieces.ids)
        case "characters" | "bytes":
            return _lengths(context, pieces, in_bytes=weights == "bytes")
        case "position":
            return torch.exp2(-(from_end if end == "input" else place).float())
        case "first" | "last":
            return ((place if weights == "first" else from_end) == 0).long()


def _lengths(context: RowContext, pieces: PieceBags, *, in_bytes: bool) -> Tensor:
    unique, inverse = torch.unique(pieces.ids, return_inverse=True)
    ids = unique.tolist()
    texts = context.texts(ids)
    if in_bytes:
        names = context.tokenizer.convert_ids_to_tokens(ids)
        lengths = [_num_bytes(name, text) for name, text in zip(names, texts, strict=True)]
    else:
        lengths = [max(1, len(text)) for text in texts]
    return torch.tensor(lengths, dtype=torch.long, device=inverse.device)[inverse]


def _num_bytes(name: str, text: str) -> int:
    if _UNDECODABLE not in text or _UNDECODABLE in name:
        return max(1, len(text.encode()))
    # A part of a character: a byte piece such as <0xE0>, or a name that spells a byte as a letter.
    return 1 if name.startswith("<0x") else len(name)
