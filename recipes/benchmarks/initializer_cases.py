"""What `compare_initializers.py` compares: bases with text, and methods."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from lightning_vocab.callbacks import FreezeBackbone
from lightning_vocab.data import TextSource
from lightning_vocab.data.documents import read_documents
from lightning_vocab.data.sources import as_sources
from lightning_vocab.datamodule import VocabDataModule
from lightning_vocab.initializers import (
    FOCUS,
    OFA,
    WECHSEL,
    ConvexHull,
    DictionaryAlignment,
    Initializer,
    Mean,
    Multivariate,
    Normal,
    OrthogonalMatchingPursuit,
    SubwordMean,
    Zeros,
)
from lightning_vocab.initializers.spaces.base_model import BaseModelSpace
from lightning_vocab.initializers.spaces.fasttext import FastTextSpace
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.rows import find_split
from lightning_vocab.vocabulary import ContinuedBPE


@dataclass(frozen=True)
class Setting:
    """A base, text of a new and of an old kind, and how long to train. ``@`` is the assets folder.

    The training text is the new one and, in front of it, some of the old one: it keeps what the
    base knows. Learning rates are those of the quickstart.
    """

    base: str
    new: TextSource
    old: TextSource
    width: int
    is_untied: bool = False
    dictionary: str | None = None
    donor: str | None = None
    num_new_tokens: int = 400
    stage_1: int = 60
    stage_2: int = 60
    block_size: int = 128
    batch_size: int = 8
    train_bytes: int = 1_500_000
    old_train_bytes: int = 300_000
    val_bytes: int = 24_000
    snippet_bytes: int = 100_000

    @property
    def points(self) -> list[int]:
        """Steps at which everything is scored."""
        first, second = self.stage_1, self.stage_2
        last = [first + second * share // 4 for share in (2, 4)]
        return [0, first // 4, first // 2, first, *last]


STORIES = TextSource("@/text/tinystories.jsonl")
NEWS = TextSource("@/text/ntrex_en_th_vi.jsonl", text_field="en")
CODE, ENGLISH = TextSource("demo:code"), TextSource("demo:english")
SETTINGS = {
    "stories-en": Setting("@/lm/stories260K", STORIES, NEWS, 64, donor="@/lm/english-4M"),
    "stories-th": Setting(
        "@/lm/stories260K",
        TextSource("@/text/th_wisesight.jsonl"),
        STORIES,
        64,
        dictionary="@/dictionaries/en-th.tsv",
    ),
    "demo-code": Setting("demo", CODE, ENGLISH, 128, stage_1=40, stage_2=40),
    # An untied base, where input and output rows are made in two ways.
    "english-code": Setting("@/lm/english-4M", CODE, ENGLISH, 192, True, stage_1=40, stage_2=40),
}


@dataclass(frozen=True)
class Place:
    """A setting with its paths."""

    name: str
    setting: Setting
    assets: str
    folder: Path

    def path(self, text: str) -> str:
        """A path whose leading ``@`` is the folder of assets."""
        return self.assets + text[1:] if text.startswith("@") else text

    def text(self, part: str) -> str:
        """The file of ``train``, ``old_train``, ``new`` or ``old`` text."""
        return str(self.folder / f"{part}.jsonl")

    def fasttext(self, method: str) -> FastTextSpace:
        """Trained on the training text; kept for each method, so each pays for it once."""
        corpus = [self.text("old_train"), self.text("train")]
        cache = str(self.folder / "spaces" / method)
        return FastTextSpace(corpus, min_count=5, buckets=100_000, cache_dir=cache)

    def data(self, extender: ContinuedBPE | None = None, seed: int = 7) -> VocabDataModule:
        return VocabDataModule(
            base=self.path(self.setting.base),
            expansion_dir=str(self.folder / "expansion"),
            extender=extender,
            train=[self.text("old_train"), self.text("train")],
            extend_on=self.text("train"),
            val={"new": self.text("new"), "old": self.text("old")},
            block_size=self.setting.block_size,
            batch_size=self.setting.batch_size,
            cache_dir=str(self.folder / "cache"),
            seed=seed,
        )


Stage = Callable[[VocabExpansionModule, VocabDataModule, Place, int], None]


@dataclass(frozen=True)
class Method:
    """A method, where it can be used, and a training stage of its own before the fit, if any."""

    make: Callable[[Place], Initializer]
    stage: Stage | None = None
    needs: str | None = None
    """Name of the field of a `Setting` that must be given."""


def spaced(kind: Callable[..., Initializer], title: str, **options: Any) -> dict[str, Method]:
    """A method with the states of the base model, and with fastText trained on the text."""

    def make(place: Place, *, with_fasttext: bool) -> Initializer:
        space = place.fasttext(title) if with_fasttext else BaseModelSpace()
        chosen = {name: read(place) for name, read in options.items()}
        return kind(space, fallback=SubwordMean(), **chosen)

    return {
        f"{title}, {name}": Method(partial(make, with_fasttext=is_trained))
        for name, is_trained in (("base states", False), ("fastText", True))
    }


def in_text(place: Place) -> Initializer:
    snippets = [place.text("old_train_snippets"), place.text("train_snippets")]
    space = BaseModelSpace(snippets=snippets, cache_dir=str(place.folder / "spaces" / "in text"))
    return FOCUS(space, fallback=SubwordMean())


def dictionary(place: Place) -> Initializer:
    pairs = place.path(place.setting.dictionary or "")
    return DictionaryAlignment(pairs, fallback=SubwordMean())


def pursuit(place: Place) -> Initializer:
    donor = place.path(place.setting.donor or "")
    return OrthogonalMatchingPursuit(donor, fallback=SubwordMean())


def distilled(module: VocabExpansionModule, data: VocabDataModule, place: Place, seed: int) -> None:
    """Token distillation for as many steps as stage 1 has, from the rows that the module has."""
    from lightning_vocab.distillation import DistillationDataModule, DistillationModule

    setting, expansion = place.setting, data.hparams["expansion_dir"]
    base = data.hparams["base"]
    student = DistillationModule(
        base, expansion, SubwordMean(), lr_new_rows=3e-3, initializer_seed=seed
    )
    snippets = DistillationDataModule(
        base,
        expansion,
        train=place.text("train"),
        block_size=setting.block_size,
        batch_size=setting.batch_size,
        cache_dir=data.hparams["cache_dir"],
        seed=seed,
    )
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=-1,
        max_steps=setting.stage_1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[FreezeBackbone()],
    )
    trainer.fit(student, datamodule=snippets)
    taught, split = find_split(student.language_model), find_split(module.language_model)
    assert taught is not None
    assert split is not None
    for place_of_rows in (0, 1):  # embedding and head, one object where the base is tied
        rows, learned = split[place_of_rows].rows, taught[place_of_rows].rows
        rows.new.data.copy_(learned.new.data)


METHODS: dict[str, Method] = {
    "Normal": Method(lambda _: Normal()),
    "Mean": Method(lambda _: Mean()),
    "Mean, no noise": Method(lambda _: Mean(noise=0.0)),
    "Multivariate": Method(lambda _: Multivariate()),
    "ConvexHull": Method(lambda _: ConvexHull()),
    "Zeros, head too": Method(lambda _: Zeros(in_head=True)),
    "SubwordMean": Method(lambda _: SubwordMean()),
    "SubwordMean, position": Method(
        lambda _: SubwordMean("none", "position", "position", "position")
    ),
    "SubwordMean, last piece": Method(lambda _: SubwordMean("none", "first", "last", "last")),
    "SubwordMean, no rescaling": Method(lambda _: SubwordMean("none"), needs="is_untied"),
    "SubwordMean, distilled": Method(lambda _: SubwordMean(), stage=distilled),
    "DictionaryAlignment": Method(dictionary, needs="dictionary"),
    "MatchingPursuit": Method(pursuit, needs="donor"),
    "FOCUS, base states in text": Method(in_text),
    **spaced(FOCUS, "FOCUS"),
    **spaced(WECHSEL, "WECHSEL"),
    **spaced(OFA, "OFA", dim=lambda place: place.setting.width // 2),
}
"""Add a method by its name; a trained stage gets the module, the data, the place and the seed."""


def write_text(place: Place, source: TextSource, held_out: str, train: str, limit: int) -> None:
    """Shuffled documents: some held out, cut to 4,000 characters, and others to train on."""
    if Path(place.text(train)).exists():  # their times of change are part of what caches go by
        return
    (settled,) = as_sources(replace(source, path=place.path(source.path)), "train")
    documents = list(read_documents(settled, str(place.folder / "cache" / "text")))
    random.Random(0).shuffle(documents)
    scored = [text[:4_000] for text in documents]
    num_scored = write_first(scored, place.setting.val_bytes, place.text(held_out))
    rest = documents[num_scored:]
    write_first(rest, place.setting.snippet_bytes, place.text(f"{train}_snippets"))
    write_first(rest, limit, place.text(train))


def write_first(documents: list[str], num_bytes: int, path: str) -> int:
    """Write the documents that begin in the first bytes of all, and say how many they are."""
    sizes = accumulate((len(text.encode()) for text in documents), initial=0)
    chosen = [text for text, start in zip(documents, sizes, strict=False) if start < num_bytes]
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in chosen]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(chosen)
