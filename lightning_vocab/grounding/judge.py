"""Everything by which the new rows of one fit are judged, made once at its start."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lightning_vocab.data.rows import Collate
from lightning_vocab.data.tokenise import frame_of
from lightning_vocab.demo import resolve_base
from lightning_vocab.grounding.diagnostics import (
    Diagnostics,
    ReferenceSpaces,
    measure_grounding,
    places_of,
)
from lightning_vocab.grounding.pairs import Pair
from lightning_vocab.grounding.reference import (
    DescribedTokens,
    DescriptionEncoder,
    state_vectors,
    word_vectors,
)
from lightning_vocab.grounding.rows import GroundingRows, grounding_rows
from lightning_vocab.grounding.templates import Templates
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.vocabulary.expansion import ExpandedTokenizer
from lightning_vocab.vocabulary.folder import load_tokenizer
from lightning_vocab.watched_rows import watch


class GroundingJudge:
    """Measures the new rows of a module, as often as asked, against spaces that do not move.

    The spaces are ``words`` (`word_vectors`) and ``states`` (`state_vectors` of the model as it is
    now) or, with an encoder, ``encoder`` (`DescriptionEncoder`).

    Args:
        module: A module whose model is built and expanded.
        pairs: Tokens and their descriptions.
        templates: The first template from description to tokens asks for the tokens.
        chat: Whether it is put as a user's message.
        encoder: Folder or hub id of an encoder, to take the place of hidden states.
        vectors: The vectors of an earlier judge of this fit (`vectors`), whose model has moved
            since; None computes them.
        max_pairs: Of more pairs than this, a sample of so many is judged (`sampled`).
        seed: Seed of the samples of pairs and of old rows.

    Raises:
        ValueError: If no pair has a new token, a description is longer than the model's context, or
            the vectors are those of other pairs.
    """

    def __init__(
        self,
        module: VocabExpansionModule,
        pairs: Sequence[Pair],
        templates: Templates,
        *,
        chat: bool = False,
        encoder: str | None = None,
        vectors: Tensor | None = None,
        max_pairs: int = 4000,
        seed: int = 0,
    ) -> None:
        assert module.expanded is not None, "the module is expanded"
        expanded, model = module.expanded, module.language_model
        pairs = sampled(pairs, max_pairs, seed)
        self.rows = _rows(model, expanded, pairs, templates, chat)
        self.loss = module.loss
        self.watched = watch(model, None, expanded.expansion.base_len, seed)
        self.described = DescribedTokens.of(pairs, expanded)
        new_ids = torch.tensor(expanded.expansion.new_ids)
        self.places = places_of(self.described.ids, new_ids)
        self.space = "states" if encoder is None else "encoder"
        self.vectors = self._vectors(module, encoder) if vectors is None else vectors
        self.reference = self._reference()
        # Before anything is ranked: a head that does more than the streamed loss knows shows here.
        batch = Collate(frame_of(expanded.tokenizer).pad)([self.rows[0]])
        module.check_loss({name: part.to(model.device) for name, part in batch.items()})

    def measure(self) -> Diagnostics:
        """The rows as they are now."""
        return measure_grounding(self.loss, self.watched, self.reference, self.rows)

    def _reference(self) -> ReferenceSpaces:
        if len(self.vectors) != len(self.described.ids):
            raise ValueError(
                f"Expected vectors of the {len(self.described.ids)} tokens of these pairs, got "
                f"{len(self.vectors)}: they were made of other pairs."
            )
        words = self.described.mean(word_vectors(self.described.descriptions))
        spaces = {self.space: self.vectors, "words": words}
        return ReferenceSpaces(self.described.ids, spaces)

    def _vectors(self, module: VocabExpansionModule, encoder: str | None) -> Tensor:
        texts, model = self.described.descriptions, module.language_model
        if encoder is not None:
            found = DescriptionEncoder(encoder).encode(texts, model.device)
        else:
            assert module.expanded is not None, "as above"
            base_tokenizer = load_tokenizer(resolve_base(module.hparams["base"]))
            found = state_vectors(model, module.expanded, base_tokenizer, texts)
        return self.described.mean(found)


def sampled(pairs: Sequence[Pair], size: int, seed: int) -> Sequence[Pair]:
    """Pairs of descriptions drawn without repetition until there are ``size``, in their order.

    A description that is drawn comes with all its pairs, however many they are: each of its tokens
    is a right answer to it, so a part of them would count the others as wrong.

    Args:
        pairs: The pairs.
        size: How many; the last description may bring more.
        seed: Seed of the draw.
    """
    if len(pairs) <= size:
        return pairs
    place: dict[str, int] = {}
    text = torch.tensor([place.setdefault(pair.description, len(place)) for pair in pairs])
    order = torch.randperm(len(place), generator=torch.Generator().manual_seed(seed))
    counts = torch.bincount(text)[order]
    is_drawn = torch.zeros(len(place), dtype=torch.bool)
    is_drawn[order] = counts.cumsum(0) - counts < size
    return [pairs[number] for number in is_drawn[text].nonzero().flatten().tolist()]


def _rows(
    model: PreTrainedModel,
    expanded: ExpandedTokenizer,
    pairs: Sequence[Pair],
    templates: Templates,
    chat: bool,
) -> GroundingRows:
    """The questions by which the tokens are asked for."""
    room = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return grounding_rows(
        pairs,
        Templates.of(templates.to_tokens[:1]),
        expanded.tokenizer,
        frame_of(expanded.tokenizer),
        chat=chat,
        direction="to_tokens",
        token_ids={token.surface: token.id for token in expanded.expansion.tokens},
        block_size=room,
    )
