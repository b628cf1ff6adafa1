"""Whether a run that is resumed within a stream gets the batches that it would have got."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from lightning_vocab.data import streamed_rows
from lightning_vocab.data.loader import training_loader
from lightning_vocab.data.rows import Collate
from lightning_vocab.data.shards import Shard, shards_of
from lightning_vocab.data.sources import TextSource
from lightning_vocab.data.stream_loader import (
    State,
    StreamLoader,
    batches_of_an_epoch,
    stream_loader,
)
from lightning_vocab.data.streamed_rows import StreamedRows
from lightning_vocab.data.tokenise import Layout
from tests.conftest import case, make_tokenizer
from tests.quiet import Recorder, quiet_trainer

Seen = list[list[list[int]]]

NUM_FILES = 3
NUM_BATCHES = 30  # two epochs and a part


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A buffer is tokenised in several parts."""
    monkeypatch.setattr(streamed_rows, "_CHUNK", 2)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Shard]:
    """Files of 6, 9 and 12 documents, which say where they stand."""
    folder = tmp_path_factory.mktemp("text")
    for number in range(NUM_FILES):
        texts = [f"document {index} of the file {number}" for index in range(6 + 3 * number)]
        (folder / f"{number}.txt").write_text("\n".join(texts))
    return shards_of(TextSource(str(folder), split="train"))


def rows(shards: list[Shard], **changes: Any) -> StreamedRows:
    options = {"batch_size": 2, "shuffle_buffer": 5, "seed": 7, **changes}
    return StreamedRows(shards, make_tokenizer(), Layout("packed", 16), Collate(0), **options)


def take(loader: StreamLoader, count: int) -> Seen:
    return [ids(batch) for batch in islice(loader, count)]


def ids(batch: dict[str, Tensor]) -> list[list[int]]:
    found: list[list[int]] = batch["input_ids"].tolist()
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_workers", "points"),
    [
        case(0, range(NUM_BATCHES), quick=True, id="no workers"),
        case(2, (1, 8, 17), quick=False, id="two workers"),
    ],
)
def test_resumed_at_any_point_the_stream_goes_on(
    shards: list[Shard], num_workers: int, points: range | tuple[int, ...]
) -> None:
    whole = StreamLoader(rows(shards, num_workers=num_workers))
    states, seen = [whole.state_dict()], []
    for batch in islice(whole, NUM_BATCHES):
        seen.append(ids(batch))
        states.append(whole.state_dict())
    assert all(place["buffer"]["epoch"] >= 1 for place in states[-1]["places"][0])
    for point in points:
        rest = StreamLoader(rows(shards, num_workers=num_workers))
        rest.load_state_dict(states[point])
        assert take(rest, NUM_BATCHES - point) == seen[point:], point


def test_iterating_again_goes_on(shards: list[Shard]) -> None:
    loader = StreamLoader(rows(shards))
    assert take(loader, 3) + take(loader, 4) == take(StreamLoader(rows(shards)), 7)


def test_loading_leaves_the_global_random_state_alone(shards: list[Shard]) -> None:
    before = torch.get_rng_state()
    take(StreamLoader(rows(shards)), 3)
    assert torch.equal(torch.get_rng_state(), before)


class Reader(Recorder):
    """Reads a stream on its rank."""

    def __init__(
        self, shards: list[Shard], folder: Path | None = None, num_workers: int = 0
    ) -> None:
        super().__init__(folder)
        self.shards = shards
        self.num_workers = num_workers

    @override
    def note(self, batch: dict[str, Tensor]) -> list[list[int]]:
        return ids(batch)

    @override
    def train_dataloader(self) -> StreamLoader:
        ranks = self.trainer.distributed_sampler_kwargs or {}
        return stream_loader(rows(self.shards, num_workers=self.num_workers, **ranks), self.trainer)

    @override
    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(torch.zeros(2, 1), batch_size=1)  # type: ignore[arg-type]


def trainer(folder: Path, **options: Any) -> Trainer:
    keep = ModelCheckpoint(folder, filename="{step}", save_top_k=-1, every_n_train_steps=1)
    return quiet_trainer(folder, [keep], **options)


MOMENTS: dict[str, dict[str, Any]] = {
    "in one long epoch": {"max_steps": 6, "val_check_interval": 0.5},
    "while accumulating": {"max_steps": 4, "accumulate_grad_batches": 2},
    "in epochs of three batches": {"max_epochs": 2, "limit_train_batches": 3},
}


@pytest.mark.slow
# The resumed run keeps its checkpoints in a folder of its own.
@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("moment", MOMENTS)
def test_resumed_run_sees_exactly_the_batches_that_were_left(
    tmp_path: Path, shards: list[Shard], moment: str
) -> None:
    whole = Reader(shards)
    trainer(tmp_path, **MOMENTS[moment]).fit(whole)
    assert whole.seen == take(StreamLoader(rows(shards)), len(whole.seen))
    checkpoints = sorted(tmp_path.glob("*.ckpt"))
    assert len(checkpoints) >= 4
    for checkpoint in checkpoints:
        recorded = torch.load(checkpoint)["num_batches_recorded"]
        rest = Reader(shards)
        trainer(tmp_path / "rest", **MOMENTS[moment]).fit(rest, ckpt_path=str(checkpoint))
        assert rest.seen == whole.seen[recorded:], checkpoint.name


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("longer", [{"max_steps": 7}, {"max_epochs": 2, "limit_train_batches": 4}])
def test_run_that_max_steps_stopped_goes_on_in_the_stream(
    tmp_path: Path, shards: list[Shard], longer: dict[str, int]
) -> None:
    trainer(tmp_path, max_steps=4).fit(Reader(shards))
    rest = Reader(shards)
    checkpoint = str(tmp_path / "step=4.ckpt")
    trainer(tmp_path / "rest", **longer).fit(rest, ckpt_path=checkpoint)
    seen = take(StreamLoader(rows(shards)), 8)
    assert len(rest.seen) >= 3
    assert rest.seen == seen[4 : 4 + len(rest.seen)]


def on_two_ranks(folder: Path, shards: list[Shard], num_workers: int, **options: Any) -> list[Seen]:
    """What each rank saw, as its files tell."""
    folder.mkdir()
    ckpt_path = options.pop("ckpt_path", None)
    two = trainer(folder, devices=2, strategy="ddp_fork", limit_val_batches=0, **options)
    two.fit(Reader(shards, folder, num_workers), ckpt_path=ckpt_path)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.ddp
@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("num_workers", [0, case(2, quick=False)])
def test_resumed_ranks_see_the_batches_that_each_had_left(
    tmp_path: Path, shards: list[Shard], num_workers: int
) -> None:
    whole = on_two_ranks(tmp_path / "whole", shards, num_workers, max_steps=9)
    assert len(whole[0]) == len(whole[1]) == 9
    rows_of = [{tuple(row) for batch in seen[:4] for row in batch} for seen in whole]
    assert not rows_of[0] & rows_of[1]
    checkpoint = str(tmp_path / "whole" / "step=4.ckpt")
    rest = on_two_ranks(tmp_path / "rest", shards, num_workers, max_steps=9, ckpt_path=checkpoint)
    assert rest == [seen[4:] for seen in whole]


def test_ranks_that_read_the_same_text_stand_at_one_place(shards: list[Shard]) -> None:
    """As under tensor parallelism, where four processes are two ranks of the data."""
    first, second = (StreamLoader(rows(shards, num_replicas=2, rank=rank)) for rank in range(2))
    seen = [take(loader, 5)[3:] for loader in (first, second)]
    later = [StreamLoader(rows(shards, num_replicas=2, rank=rank)) for rank in (0, 0, 1, 1)]
    states: list[State] = []
    for loader in later:
        loader.gather = lambda own: states.append(own) or [own]  # type: ignore[func-returns-value]
        take(loader, 3)
        loader.state_dict()
    later[0].gather = lambda own: states
    state = later[0].state_dict()
    for loader, expected in zip(later, (seen[0], seen[0], seen[1], seen[1]), strict=True):
        again = StreamLoader(loader.rows)
        again.load_state_dict(state)
        assert take(again, 2) == expected


@pytest.mark.parametrize(
    "change",
    [{"seed": 8}, {"num_replicas": 2}, {"num_workers": 2}, {"shuffle_buffer": 6}],
    ids=lambda change: next(iter(change)),
)
def test_place_in_another_order_is_refused(shards: list[Shard], change: dict[str, int]) -> None:
    state = started(shards)
    with pytest.raises(MisconfigurationException, match=next(iter(change))):
        StreamLoader(rows(shards, **change)).load_state_dict(state)


def test_place_in_other_files_is_refused(shards: list[Shard]) -> None:
    with pytest.raises(MisconfigurationException, match="'num_shards': 3"):
        StreamLoader(rows(shards[:2])).load_state_dict(started(shards))


def test_place_before_the_first_batch_fits_every_stream(shards: list[Shard]) -> None:
    other = StreamLoader(rows(shards, seed=8))
    other.load_state_dict(StreamLoader(rows(shards)).state_dict())
    assert take(other, 2) == take(StreamLoader(rows(shards, seed=8)), 2)


def started(shards: list[Shard]) -> State:
    loader = StreamLoader(rows(shards))
    take(loader, 2)
    return loader.state_dict()


def test_places_in_a_cache_and_in_a_stream_are_told_apart(shards: list[Shard]) -> None:
    cached = training_loader(torch.zeros(4, 1), torch.stack, batch_size=2)  # type: ignore[arg-type]
    next(iter(cached))
    with pytest.raises(MisconfigurationException, match="streaming=True"):
        cached.load_state_dict(started(shards))
    with pytest.raises(MisconfigurationException, match="streaming=False"):
        StreamLoader(rows(shards)).load_state_dict(cached.state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "max_steps=-1 and max_epochs=None"),
        ({"max_epochs": 2}, "no end: expected the Trainer's max_steps"),
        ({"max_steps": 3, "limit_train_batches": 0.5}, "as a number of batches, got 0.5"),
        ({"max_steps": 3, "overfit_batches": 1}, "overfit_batches"),
        ({"max_steps": 3, "reload_dataloaders_every_n_epochs": 1}, "reload_dataloaders"),
    ],
    ids=["nothing", "epochs", "share", "overfit", "reload"],
)
@pytest.mark.filterwarnings("ignore:`max_epochs` was not set")
def test_run_without_an_end_is_refused(options: dict[str, Any], message: str) -> None:
    endless = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **options)
    with pytest.raises(MisconfigurationException, match=message):
        batches_of_an_epoch(endless)


def test_files_that_do_not_come_out_even_are_told(shards: list[Shard]) -> None:
    elsewhere = [replace(shard, file=None) for shard in shards]  # each reading is a download
    with pytest.warns(UserWarning, match="3 shards, for 2 ranks .*: 2 processes read each shard"):
        StreamLoader(rows(elsewhere, num_replicas=2))
    StreamLoader(rows(elsewhere, num_replicas=3))


def test_stream_alone_has_no_length(shards: list[Shard]) -> None:
    with pytest.raises(TypeError, match="no length"):
        len(StreamLoader(rows(shards)))
