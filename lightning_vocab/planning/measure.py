"""What `lightning-vocab plan` measures: one growth, and what it makes of each text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from lightning_vocab.planning.points import Budget, Plan
from lightning_vocab.planning.texts import PlanTexts, one_after_another, read_all
from lightning_vocab.rows.model_size import ModelSize
from lightning_vocab.vocabulary.backend_state import BackendState, read_state
from lightning_vocab.vocabulary.corpus import batches
from lightning_vocab.vocabulary.describe import rows_of_base
from lightning_vocab.vocabulary.limits import TooFewTokensError
from lightning_vocab.vocabulary.measuring.fertility import encode_batch
from lightning_vocab.vocabulary.measuring.growth_curve import (
    Lineage,
    grow_as_far_as_possible,
    measure_curve,
)
from lightning_vocab.vocabulary.progress import Progress
from lightning_vocab.vocabulary.slots.slots import slots_of


def check_bpe(base: BackendState, name: str) -> None:
    """Refuse a tokenizer whose tokens have no order to plan by.

    Args:
        base: State of the tokenizer.
        name: What the user called it.

    Raises:
        ValueError: If it is not a BPE tokenizer.
    """
    kind = base.model["type"]
    if kind != "BPE":
        raise ValueError(
            f"{name!r} has a {kind} tokenizer: expected BPE. The curve is read from the order of "
            "new merges, and the pieces of another kind of vocabulary have none: grow it by a few "
            "sizes of your own choice and compare them with `lightning-vocab fertility`."
        )


def measure(
    tokenizer: PreTrainedTokenizerBase,
    texts: PlanTexts,
    settings: Mapping[str, Any],
    model: ModelSize,
    budget: Budget,
) -> Plan:
    """Grow the base once and measure the curve of every text.

    Args:
        tokenizer: The base tokenizer.
        texts: The texts, in their two parts.
        settings: Arguments of `ContinuedBPE`.
        model: The model's size.
        budget: What the tokens will be trained with.

    Raises:
        ValueError: If the base has fewer rows than its tokenizer needs, the text gives not a single
            new token, or as `ContinuedBPE`.
    """
    base = read_state(tokenizer)
    base_rows = rows_of_base(base, model.num_rows)
    growth, held_out = read_all(texts.growth), read_all(texts.held_out)
    try:
        grown = grow_as_far_as_possible(tokenizer, lambda: one_after_another(growth), settings)
    except TooFewTokensError as error:
        scripts = f" and scripts {settings['scripts']}" if settings["scripts"] else ""
        raise ValueError(
            "The first nine tenths of the text give not a single new token with min_frequency="
            f"{settings['min_frequency']}{scripts}: give more text."
        ) from error
    lineage = Lineage.of(tokenizer, grown)
    show = settings["progress"]
    curves = {
        name: measure_curve(tokenizer, grown, lineage, _watched(each, show))
        for name, each in held_out.items()
    }
    return Plan(
        growth=measure_curve(tokenizer, grown, lineage, _watched(one_after_another(growth), show)),
        held_out=curves,
        model=model,
        base_rows=base_rows,
        first_new_row=int(lineage.ids[0]),
        num_slots=len(slots_of(base, model.num_rows)),
        budget=budget,
    )


def share_saved_by(
    tokenizer: PreTrainedTokenizerBase, grown: PreTrainedTokenizerBase, texts: PlanTexts
) -> float:
    """Share of the held-out tokens that added tokens save; negative if the text gets longer.

    Args:
        tokenizer: The base tokenizer.
        grown: The same with the tokens added.
        texts: The texts.
    """
    before = after = 0
    for batch in batches(one_after_another(read_all(texts.held_out))):
        before += sum(map(len, encode_batch(tokenizer, batch)))
        after += sum(map(len, encode_batch(grown, batch)))
    return 1 - after / before


def _watched(documents: Iterable[str], show: bool | None) -> Iterator[str]:
    """The documents, counted on a progress bar a thousand at a time."""
    with Progress(show) as progress:
        progress.phase("counting tokens")
        for number, document in enumerate(documents, start=1):
            yield document
            if number % 1000 == 0:
                progress.advance(1000)
