"""Whether a resumed epoch is the rest of the interrupted one, and ranks share the rows out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from lightning_vocab.data.loader import (
    ResumableLoader,
    ResumableSampler,
    evaluation_loader,
    training_loader,
)
from tests.conftest import case
from tests.quiet import Recorder, quiet_trainer


class Numbers(Dataset[int]):
    """Row ``i`` is the number ``i``."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    @override
    def __getitem__(self, index: int) -> int:
        return index


def collate(rows: Sequence[int]) -> Tensor:
    return torch.tensor(rows)


class Reader(Recorder):
    """Reads numbered rows; notes the epoch, too."""

    def __init__(self, num_workers: int = 0) -> None:
        super().__init__()
        self.num_workers = num_workers

    @override
    def note(self, batch: Tensor) -> tuple[int, list[int]]:
        return self.current_epoch, batch.tolist()

    @override
    def train_dataloader(self) -> ResumableLoader:
        options = {"batch_size": 4, "num_workers": self.num_workers, "seed": 7, **self.ranks()}
        limit = self.trainer.limit_train_batches
        return training_loader(Numbers(14), collate, limit_batches=limit, **options)

    @override
    def val_dataloader(self) -> DataLoader[Any]:
        return evaluation_loader(Numbers(4), collate, batch_size=2, **self.ranks())

    def ranks(self) -> dict[str, Any]:
        return self.trainer.distributed_sampler_kwargs or {"num_replicas": 1, "rank": 0}


def keep_all(folder: Path, **options: Any) -> ModelCheckpoint:
    return ModelCheckpoint(
        folder, filename="{epoch}-{step}", save_top_k=-1, auto_insert_metric_name=True, **options
    )


# fmt: off
LIMITS: list[dict[str, int]] = [{"max_epochs": 3}, {"max_steps": 10}]
MOMENTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "after each step": ({"every_n_train_steps": 1}, {}),
    "at epoch ends": ({"every_n_epochs": 1, "save_on_train_epoch_end": True}, {}),
    "after validation in an epoch": ({"every_n_epochs": 1, "save_on_train_epoch_end": False},
                                     {"val_check_interval": 2}),
    "while accumulating": ({"every_n_train_steps": 1}, {"accumulate_grad_batches": 2}),
    "in epochs of a share": ({"every_n_train_steps": 1}, {"limit_train_batches": 0.75}),
    "in limited epochs": ({"every_n_train_steps": 1}, {"limit_train_batches": 3}),
}
QUICK_MOMENTS = {"max_epochs": ("at epoch ends", "after validation in an epoch"),
                 "max_steps": ("while accumulating",)}
# fmt: on


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "limit"),
    [
        case(moment, limit, quick=moment in QUICK_MOMENTS[key], id=f"{moment}-{key}")
        for moment in MOMENTS
        for limit in LIMITS
        for key in list(limit)
    ],
)
def test_resumed_run_sees_exactly_the_batches_that_were_left(
    tmp_path: Path, moment: str, limit: dict[str, int]
) -> None:
    when, options = MOMENTS[moment]
    whole = Reader()
    quiet_trainer(tmp_path, [keep_all(tmp_path, **when)], **limit, **options).fit(whole)
    checkpoints = sorted(tmp_path.glob("*.ckpt"))
    assert len(checkpoints) >= 2
    for checkpoint in checkpoints:
        recorded = torch.load(checkpoint)["num_batches_recorded"]
        rest = Reader()
        again = quiet_trainer(tmp_path, [keep_all(tmp_path, **when)], **limit, **options)
        again.fit(rest, ckpt_path=str(checkpoint))
        assert rest.seen == whole.seen[recorded:], checkpoint.name


def test_resuming_a_resumed_run_still_keeps_the_order(tmp_path: Path) -> None:
    def fit(max_steps: int, ckpt_path: str | None = None) -> Reader:
        module = Reader()
        epoch_ends = keep_all(tmp_path / "end", every_n_epochs=1, save_on_train_epoch_end=True)
        inside = keep_all(tmp_path / "inside", every_n_train_steps=6)
        quiet_trainer(tmp_path, [epoch_ends, inside], max_steps=max_steps).fit(
            module, ckpt_path=ckpt_path
        )
        return module

    fit(max_steps=4)
    fit(max_steps=6, ckpt_path=str(tmp_path / "end" / "epoch=0-step=4.ckpt"))
    rest = fit(max_steps=11, ckpt_path=str(next((tmp_path / "inside").glob("*step=6.ckpt"))))
    whole = Reader()
    quiet_trainer(tmp_path, max_steps=11).fit(whole)
    assert rest.seen == whole.seen[6:]


@pytest.mark.slow
def test_batches_that_workers_fetched_ahead_are_not_lost(tmp_path: Path) -> None:
    whole = Reader()
    quiet_trainer(tmp_path, max_epochs=2).fit(whole)
    inside = keep_all(tmp_path, every_n_train_steps=6)
    quiet_trainer(tmp_path, [inside], max_steps=6).fit(Reader(num_workers=2))
    rest = Reader(num_workers=2)
    quiet_trainer(tmp_path, [inside], max_epochs=2).fit(
        rest, ckpt_path=str(next(tmp_path.glob("*step=6.ckpt")))
    )
    assert rest.seen == whole.seen[6:]


def fit_on_two_ranks(module: Reader, folder: Path, *callbacks: Checkpoint, **options: Any) -> Any:
    """What each rank saw, as its files tell."""
    folder.mkdir(exist_ok=True)
    module.folder = folder
    ckpt_path = options.pop("ckpt_path", None)
    two = quiet_trainer(folder, callbacks, devices=2, strategy="ddp_fork", **options)
    two.fit(module, ckpt_path=ckpt_path)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.ddp
def test_resumed_ranks_see_the_batches_that_each_had_left(tmp_path: Path) -> None:
    whole = fit_on_two_ranks(Reader(), tmp_path / "whole", max_epochs=2)
    inside = keep_all(tmp_path, every_n_train_steps=3)
    fit_on_two_ranks(Reader(), tmp_path / "first", inside, max_steps=3)
    checkpoint = str(next(tmp_path.glob("*step=3.ckpt")))
    rest = fit_on_two_ranks(Reader(), tmp_path / "rest", inside, max_epochs=2, ckpt_path=checkpoint)
    assert rest == [seen[3:] for seen in whole]


def rows_of(seen: list[tuple[int, list[int]]], epoch: int) -> list[int]:
    return [row for at, rows in seen for row in rows if at == epoch]


@pytest.mark.parametrize("num_rows", [22, 23])
def test_ranks_share_an_epoch_without_overlap(num_rows: int) -> None:
    samplers = [ResumableSampler(range(num_rows), 2, rank, seed=7) for rank in range(2)]
    parts = [list(sampler) for sampler in samplers]
    assert len(parts[0]) == len(parts[1]) == num_rows // 2
    assert len({*parts[0], *parts[1]}) == num_rows // 2 * 2


def test_rows_left_out_for_the_sake_of_equal_ranks_differ_between_epochs() -> None:
    sampler = ResumableSampler(range(5), num_replicas=2, rank=0, seed=7)
    other = ResumableSampler(range(5), num_replicas=2, rank=1, seed=7)
    left_out = set()
    for epoch in range(8):
        sampler.set_epoch(epoch)
        other.set_epoch(epoch)
        left_out |= set(range(5)) - {*sampler, *other}
    assert len(left_out) > 1


def test_epoch_has_every_row_once(tmp_path: Path) -> None:
    module = Reader()
    quiet_trainer(tmp_path, max_epochs=2).fit(module)
    assert sorted(rows_of(module.seen, 0)) == sorted(rows_of(module.seen, 1)) == list(range(14))


def test_order_differs_between_epochs_and_between_seeds() -> None:
    sampler = ResumableSampler(range(22), seed=7)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert list(ResumableSampler(range(22), seed=8)) != first


def test_length_stays_that_of_the_epoch_after_resuming() -> None:
    loader = training_loader(Numbers(22), collate, batch_size=4)
    iterator = iter(loader)
    next(iterator)
    again = training_loader(Numbers(22), collate, batch_size=4)
    again.load_state_dict(loader.state_dict())
    assert len(again) == 6
    assert len(list(again)) == 5


def test_loading_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    list(training_loader(Numbers(22), collate, batch_size=4))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "change",
    [{"batch_size": 2}, {"seed": 8}, {"num_replicas": 2}],
    ids=lambda change: next(iter(change)),
)
def test_rest_of_an_epoch_in_another_order_is_refused(change: dict[str, int]) -> None:
    loader = training_loader(Numbers(24), collate, batch_size=4, seed=7)
    next(iter(loader))
    other = training_loader(Numbers(24), collate, **{"batch_size": 4, "seed": 7, **change})
    with pytest.raises(MisconfigurationException, match="after 1 batches of an epoch"):
        other.load_state_dict(loader.state_dict())


def test_rest_of_an_epoch_over_other_rows_is_refused() -> None:
    loader = training_loader(Numbers(24), collate, batch_size=4)
    next(iter(loader))
    other = training_loader(Numbers(23), collate, batch_size=4)
    with pytest.raises(MisconfigurationException, match="'num_rows': 24"):
        other.load_state_dict(loader.state_dict())


def test_finished_epoch_may_be_followed_by_another_batch_size() -> None:
    loader = training_loader(Numbers(24), collate, batch_size=4)
    list(loader)
    other = training_loader(Numbers(24), collate, batch_size=2)
    other.load_state_dict(loader.state_dict())
    assert len(list(other)) == 12


def test_state_from_before_the_first_batch_begins_the_epoch() -> None:
    loader = training_loader(Numbers(24), collate, batch_size=4)
    other = training_loader(Numbers(24), collate, batch_size=4)
    other.load_state_dict(loader.state_dict())
    assert [batch.tolist() for batch in other] == [batch.tolist() for batch in loader]


def test_run_that_max_steps_stopped_within_an_epoch_goes_on_in_it(tmp_path: Path) -> None:
    whole, first, rest = Reader(), Reader(), Reader()
    quiet_trainer(tmp_path, max_steps=9).fit(whole)
    stopped = quiet_trainer(tmp_path, max_steps=3)
    stopped.fit(first)
    stopped.save_checkpoint(tmp_path / "stopped.ckpt")
    quiet_trainer(tmp_path, max_steps=9).fit(rest, ckpt_path=str(tmp_path / "stopped.ckpt"))
    assert [rows for _, rows in rest.seen] == [rows for _, rows in whole.seen[3:]]


def test_fewer_rows_than_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one row for each of 4 ranks, got 3"):
        ResumableSampler(range(3), num_replicas=4)


def test_evaluation_gives_every_row_to_one_rank() -> None:
    parts = [
        torch.cat(
            list(evaluation_loader(Numbers(10), collate, batch_size=2, num_replicas=2, rank=rank))
        ).tolist()
        for rank in range(2)
    ]
    assert sorted(parts[0] + parts[1]) == list(range(10))
    assert len(parts[0]) == len(parts[1])


def test_evaluation_that_would_repeat_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 2 rows, got 11"):
        evaluation_loader(Numbers(11), collate, batch_size=2, num_replicas=2)
