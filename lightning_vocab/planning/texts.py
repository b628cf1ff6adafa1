"""The text of `lightning-vocab plan`: most of it to grow on, the rest to measure on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from lightning_vocab.commands.texts import parse_texts
from lightning_vocab.data.documents import Documents, read_documents
from lightning_vocab.data.sources import TextSource, as_named_sources


@dataclass(frozen=True)
class PlanTexts:
    """Sources in two parts; nothing is read before it is asked for.

    Args:
        growth: Text that tokens are learned from, by name: the first nine tenths of a source.
        held_out: Text that the gain is measured on, by name: the last tenth.
    """

    growth: Mapping[str, TextSource]
    held_out: Mapping[str, TextSource]


def split_texts(words: Sequence[str]) -> PlanTexts:
    """Sources in two parts, cut so that a recipe can name both.

    The demo text has a split of its own for each part.

    Args:
        words: Texts as `parse_texts` reads them.

    Raises:
        ValueError: If a text is not named right.
    """
    sources = parse_texts(words)
    as_named_sources(sources, "validation")  # their names become keys of a log
    growth, held_out = {}, {}
    for name, source in sources.items():
        is_demo = source.kind == "demo"
        growth[name] = replace(source, split="train" if is_demo else "train[:90%]")
        held_out[name] = replace(source, split="validation" if is_demo else "train[90%:]")
    return PlanTexts(growth, held_out)


def read_all(sources: Mapping[str, TextSource]) -> dict[str, Documents]:
    """The documents of all sources.

    Args:
        sources: Sources whose split is settled, by name.

    Raises:
        ValueError: As `read_documents`, also if a source is too short to have such a part.
        OSError: As `read_documents`.
    """
    return {name: read_documents(source) for name, source in sources.items()}


def one_after_another(documents: Mapping[str, Documents]) -> Iterator[str]:
    """All documents, source by source.

    Args:
        documents: Documents by name of their source.
    """
    for each in documents.values():
        yield from each
