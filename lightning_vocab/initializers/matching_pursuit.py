"""Rows rebuilt from the few base rows that rebuild a donor's row."""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from typing_extensions import override

from lightning_vocab.functional.matching_pursuit import SparseCodes, orthogonal_matching_pursuit
from lightning_vocab.initializers.base import Initializer, RowContext, required_bias, token_texts
from lightning_vocab.initializers.combined import completed, merged_rows, places_of
from lightning_vocab.initializers.coverage import Coverage, covered_by, spoken
from lightning_vocab.initializers.moments import mean_row
from lightning_vocab.initializers.stored_rows import StoredRows, read_rows
from lightning_vocab.vocabulary.folder import load_tokenizer
from lightning_vocab.vocabulary.wording import some

_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_UNDECODABLE = "\ufffd"
_GATHERED = 1 << 26  # elements of base rows in float32 at a time: 256 MiB


class _Matches(NamedTuple):
    """What base and donor share.

    Args:
        base_ids: Ids in the base of the tokens that both have, ``(anchors,)``.
        donor_ids: Their ids in the donor, ``(anchors,)``.
        targets: Ids in the donor of the new tokens that it has, ``(num_covered,)``.
        is_covered: Which new tokens those are, ``(num_new,)``.
    """

    base_ids: Tensor
    donor_ids: Tensor
    targets: Tensor
    is_covered: Tensor


class OrthogonalMatchingPursuit(Initializer):
    """Rows from another model that knows the tokens, over tokens that both models have.

    The donor's row of a new token is written as a sum of ``k`` donor rows of shared tokens, chosen
    greedily (`orthogonal_matching_pursuit`), and the same weights are laid on the base rows of
    these tokens: ``donor[t] ≈ sum(c_j * donor[j])``, ``row = sum(c_j * base[j])`` (Goddard &
    Fernandes Neto, "Training-Free Tokenizer Transplantation via Orthogonal Matching Pursuit", arXiv
    2506.06607). No space is turned into another one, so the widths may differ. Where base and donor
    are untied, input and output rows have weights of their own; where one of them is tied, the
    donor's input rows give the weights of both.

    Tokens are the same if their texts are, blank in front included. Special tokens, parts of
    characters, byte tokens and tokens whose row is zero in either model are no anchors. The weights
    may be negative and need not sum to 1, so the head's bias is the mean bias of the base.

    Cost: see `orthogonal_matching_pursuit`; only the donor's embedding and head are read. Memory:
    these two, a copy of the rows that are needed of one of them, and ``memory_gib`` beside them.

    Args:
        donor: A Hugging Face folder or a hub id of the model whose tokenizer has the tokens.
        k: Shared tokens that make a row, at most.
        fallback: Makes the rows of tokens that the donor does not have as one token, or has as a
            row of zeros. None makes such a token an error.
        normalise: Whether a shared token is chosen by its cosine to what is left; without, by the
            product itself, as the paper's own implementation does, which prefers long rows.
        memory_gib: Memory that may be taken for the work, in GiB.

    Raises:
        ValueError: If ``k`` or the memory is not positive.
    """

    def __init__(
        self,
        donor: str,
        k: int = 64,
        fallback: Initializer | None = None,
        normalise: bool = True,
        memory_gib: float = 1.0,
    ) -> None:
        if k < 1 or not memory_gib > 0:
            raise ValueError(f"k and memory_gib must be positive: got {k} and {memory_gib}.")
        self.donor = donor
        self.k = k
        self.fallback = fallback
        self.normalise = normalise
        self.memory_gib = memory_gib
        self.coverage: Coverage | None = None
        """What the last call of `rows` could do itself."""

    @override
    def rows(self, context: RowContext) -> tuple[Tensor, Tensor | None]:
        """Input rows and, if untied, output rows ``(num_new, dim)``.

        Raises:
            FileNotFoundError: If the donor has no weights.
            ValueError: If the donor is no causal language model, shares fewer than ``k`` tokens
                with the base, or has values that are nan or inf in the rows that are needed; or if
                a token is left and there is no fallback.
        """
        stored = read_rows(self.donor)
        found = self._matches(context, stored)
        self.coverage = covered_by(type(self).__name__, context, found.is_covered, self.fallback)
        codes = self._codes(context, stored.embedding, found)
        inputs = _rebuilt(context.input_rows, found.base_ids, codes)
        outputs = None
        if context.output_rows is not None:
            if stored.head is not None:
                codes = self._codes(context, stored.head, found)
            outputs = _rebuilt(context.output_rows, found.base_ids, codes)
        return completed(context, found.is_covered, (inputs, outputs), self.fallback)

    @override
    def remarks(self) -> list[str]:
        """The coverage of the last call, and what the fallback says of its own."""
        return spoken(self.coverage, self.fallback)

    @override
    def bias(self, context: RowContext) -> Tensor:
        """Head bias ``(num_new,)``: the mean of the base's, or what the fallback gives its tokens.

        Raises:
            FileNotFoundError: If the donor has no weights.
            ValueError: If the head has no bias, or what `rows` raises of the donor.
        """
        mean = mean_row(required_bias(context), context.base_ids)
        if self.fallback is None:
            return mean.expand(context.num_new)
        is_covered = self._matches(context, read_rows(self.donor)).is_covered
        biases = mean.expand(int(is_covered.sum()))
        if is_covered.all():
            return biases
        others = self.fallback.bias(context.only(places_of(~is_covered)))
        return merged_rows(is_covered, biases, others)

    def _matches(self, context: RowContext, stored: StoredRows) -> _Matches:
        tokenizer = load_tokenizer(self.donor)
        special = set(context.tokenizer.all_special_ids)
        base_ids = [id for id in context.base_ids.tolist() if id not in special]
        base = _ids_of_texts(context.tokenizer, base_ids)
        used = stored.embedding.any(dim=1)
        if stored.head is not None:
            used &= stored.head.any(dim=1)
        donor_ids = [id for id in sorted(tokenizer.get_vocab().values()) if id < len(used)]
        donor = _ids_of_texts(tokenizer, [id for id in donor_ids if used[id]])
        shared = [(id, donor[text]) for text, id in base.items() if text in donor]
        if len(shared) < self.k:
            raise ValueError(
                f"k = {self.k} shared tokens were asked for, but the base and {self.donor!r} share "
                f"{len(shared)}: take a smaller k, or a donor of a tokenizer more like the base's."
            )
        surfaces = [token.surface for token in context.expansion.tokens]
        found = _Matches(
            base_ids=torch.tensor([base_id for base_id, _ in shared]),
            donor_ids=torch.tensor([donor_id for _, donor_id in shared]),
            targets=torch.tensor([donor[text] for text in surfaces if text in donor]).long(),
            is_covered=torch.tensor([text in donor for text in surfaces]),
        )
        self._check_finite(stored, torch.cat([found.donor_ids, found.targets]), tokenizer)
        return found

    def _check_finite(
        self, stored: StoredRows, ids: Tensor, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        for rows in (stored.embedding, stored.head):
            if rows is None:
                continue
            broken = sorted(set(ids[~rows[ids].isfinite().all(dim=1)].tolist()))
            if broken:
                raise ValueError(
                    f"The donor {self.donor!r} has nan or inf in the rows of {len(broken)} tokens "
                    f"that are needed, such as {some(token_texts(tokenizer, broken))}: its "
                    "weights are damaged, or were stored in a type too small for them."
                )

    def _codes(self, context: RowContext, donor_rows: Tensor, found: _Matches) -> SparseCodes:
        device = context.input_rows.device
        if device.type == "mps":  # has no float64
            device = torch.device("cpu")
        return orthogonal_matching_pursuit(
            donor_rows[found.targets].to(device),
            donor_rows[found.donor_ids].to(device),
            self.k,
            normalise=self.normalise,
            memory_limit=int(self.memory_gib * 2**30),
        )


def _ids_of_texts(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> dict[str, int]:
    """The first id of each text, without parts of characters and byte tokens."""
    names = tokenizer.convert_ids_to_tokens(ids)
    found: dict[str, int] = {}
    for id, name, text in zip(ids, names, token_texts(tokenizer, ids), strict=True):
        if text and _UNDECODABLE not in text and not _BYTE_TOKEN.fullmatch(name):
            found.setdefault(text, id)
    return found


def _rebuilt(rows: Tensor, anchors: Tensor, codes: SparseCodes) -> Tensor:
    """Sums of base rows with the weights of ``codes``, ``(num_covered, dim)``, float32 at least."""
    dtype = torch.promote_types(rows.dtype, torch.float32)
    ids = anchors.to(rows.device)[codes.ids.to(rows.device)]
    weights = codes.coefficients.to(rows.device, dtype)
    made = torch.empty(len(ids), rows.shape[1], dtype=dtype, device=rows.device)
    # Some tokens at a time: the rows of all anchors in float32 may be gigabytes.
    size = max(1, _GATHERED // (ids.shape[1] * rows.shape[1]))
    for start in range(0, len(ids), size):
        part = slice(start, start + size)
        made[part] = (weights[part].unsqueeze(1) @ rows[ids[part]].to(dtype)).squeeze(1)
    return made
