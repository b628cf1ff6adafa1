"""Everything by which the new rows of one fit are judged, made once at its start."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

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
from lightning_vocab.grounding.rows import grounding_rows
from lightning_vocab.grounding.templates import Templates
from lightning_vocab.module import VocabExpansionModule
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
        max_pairs: Of more pairs than this, a sample of so many is judged.
        seed: Seed of the samples of pairs and of old rows.

    Raises:
        ValueError: If no pair has a new token, or the vectors are those of other pairs.
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
        self.loss = module.loss
        self.watched = watch(model, None, expanded.expansion.base_len, seed)
        self.described = DescribedTokens.of(pairs, expanded)
        new_ids = torch.tensor(expanded.expansion.new_ids)
        self.places = places_of(self.described.ids, new_ids)
        self.space = "states" if encoder is None else "encoder"
        self.vectors = self._vectors(module, encoder) if vectors is None else vectors
        if len(self.vectors) != len(self.described.ids):
            raise ValueError(
                f"Expected vectors of the {len(self.described.ids)} tokens of these pairs, got "
                f"{len(self.vectors)}: they were made of other pairs."
            )
        words = self.described.mean(word_vectors(self.described.descriptions))
        spaces = {self.space: self.vectors, "words": words}
        self.reference = ReferenceSpaces(self.described.ids, spaces)
        self.rows = grounding_rows(
            pairs,
            Templates.of(templates.to_tokens[:1]),
            expanded.tokenizer,
            frame_of(expanded.tokenizer),
            chat=chat,
            direction="to_tokens",
            token_ids={token.surface: token.id for token in expanded.expansion.tokens},
        )
        # Before anything is ranked: a head that does more than the streamed loss knows shows here.
        batch = Collate(frame_of(expanded.tokenizer).pad)([self.rows[0]])
        module.check_loss({name: part.to(model.device) for name, part in batch.items()})

    def measure(self) -> Diagnostics:
        """The rows as they are now."""
        return measure_grounding(self.loss, self.watched, self.reference, self.rows)

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
    """At most ``size`` pairs, drawn without repetition and in their order.

    Args:
        pairs: The pairs.
        size: How many.
        seed: Seed of the draw.
    """
    if len(pairs) <= size:
        return pairs
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))
    return [pairs[place] for place in order[:size].sort().values.tolist()]
