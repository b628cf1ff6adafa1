from __future__ import annotations

import copy
import hashlib
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from lightning_vocab.callbacks import FreezeBackbone, UnfreezeAt
from lightning_vocab.data.rows import IGNORED
from lightning_vocab.exact_steps import WINDOW_KEY, ExactSteps
from lightning_vocab.module import VocabExpansionModule
from tests.callbacks.modules import is_same
from tests.conftest import case
from tests.killed_runs import Run
from tests.quiet import quiet_trainer

Batch = dict[str, Tensor]
WINDOW, STEPS, EMBEDDINGS, FULL = 2, 9, 2, 5
NUM_ROWS = (3, 2, 3, 1, 2, 3, 2), (3, 3, 1, 3, 2, 3, 1)  # of each rank's 7 batches; the last differ


def make_batch(rank: int, index: int) -> Batch:
    """Rows of 4 to 12 tokens; one batch of rank 1 has no token to score at all."""
    generator = torch.Generator().manual_seed(100 * rank + index)
    lengths = torch.randint(4, 13, (NUM_ROWS[rank][index],), generator=generator)
    ids = torch.randint(312, (len(lengths), 12), generator=generator)
    mask = (torch.arange(12) < lengths[:, None]).long()
    labels = torch.full_like(ids, IGNORED) if (rank, index) == (1, 3) else ids
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": labels.masked_fill(mask == 0, IGNORED),
    }


def joined(batches: list[Batch]) -> Batch:
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


class Batches(LightningDataModule):
    """Each rank's own batches; in one process those of all ranks and a whole window are one."""

    @override
    def train_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        numbers = range(len(NUM_ROWS[0]))
        if self.trainer.world_size == 2:
            batches = [make_batch(self.trainer.global_rank, number) for number in numbers]
        else:
            windows = [[n for n in numbers if n // WINDOW == place] for place in range(4)]
            batches = [joined([make_batch(r, n) for r in (0, 1) for n in ns]) for ns in windows]
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]  # a list will do


class Watch(Callback):
    """Writes the weights before each batch as a digest, what trains, and all weights at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: list[tuple[int, int, str]] = []
        self.losses: list[float] = []

    @override
    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        digest = hashlib.sha256()
        for value in module.state_dict().values():
            digest.update(value.numpy().tobytes())
        trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
        self.seen.append((trainer.global_step, trained, digest.hexdigest()))

    @override
    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.losses.append(float(trainer.callback_metrics["train/loss_nats"]))

    @override
    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        end = {"seen": self.seen, "losses": self.losses, "weights": module.state_dict()}
        torch.save(end, self.folder / f"{trainer.world_size}{trainer.global_rank}.pt")


def fit(folder: Path, base: str, expansion: str, **options: Any) -> None:
    module = VocabExpansionModule(
        base=base,
        expansion_dir=expansion,
        optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9),
        lr_new_rows=0.3,
        lr_old_rows=0.2,
        lr_backbone=0.1,
    )
    quiet_trainer(
        folder,
        [
            FreezeBackbone(),
            UnfreezeAt(EMBEDDINGS, phase="embeddings"),
            UnfreezeAt(FULL),
            Watch(folder),
        ],
        max_steps=STEPS,
        max_epochs=-1,
        gradient_clip_val=0.5,
        use_distributed_sampler=False,
        **options,
    ).fit(module, datamodule=Batches())


@pytest.mark.ddp
@pytest.mark.parametrize(
    "base_folder",
    [case(True, quick=False, id="tied"), case(False, quick=True, id="untied")],
    indirect=True,
)
def test_ranks_and_windows_of_uneven_batches_train_as_one_process_on_all_their_tokens(
    base_folder: str, expansion_folder: str, tmp_path: Path
) -> None:
    ddp = DDPStrategy(start_method="fork", timeout=timedelta(seconds=60))
    two: dict[str, Any] = {"strategy": ddp, "accumulate_grad_batches": WINDOW, "devices": 2}
    fit(tmp_path, base_folder, expansion_folder, **two)
    fit(tmp_path, base_folder, expansion_folder, devices=1)
    first, second, alone = (torch.load(tmp_path / f"{name}.pt") for name in ("20", "21", "10"))
    assert first["seen"] == second["seen"]  # bit for bit, in each phase and after each change
    steps_by_size: dict[int, list[int]] = {}
    for step, trained, _ in first["seen"]:
        steps_by_size.setdefault(trained, []).append(step)
    assert [min(steps) for steps in steps_by_size.values()] == [0, EMBEDDINGS, FULL]
    assert is_same(first["weights"], second["weights"])
    assert first["losses"] == second["losses"]
    for name, value in alone["weights"].items():
        torch.testing.assert_close(first["weights"][name], value, rtol=1e-5, atol=1e-6, msg=name)
    last = 6  # the last window of an epoch is one batch, so both have logged the same tokens
    torch.testing.assert_close(first["losses"][last], alone["losses"][3])


def stub(step: int, rank: int) -> SimpleNamespace:
    return SimpleNamespace(
        global_step=step,
        distributed_sampler_kwargs={"rank": rank},
        is_last_batch=False,
        num_training_batches=10,
        accumulate_grad_batches=1,
        callbacks=[],
    )


def test_each_batch_draws_from_a_seed_of_its_own_and_disturbs_no_other_draw() -> None:
    def drawn(step: int, batch: int, rank: int) -> float:
        module = ExactSteps()
        module._trainer = stub(step, rank)  # type: ignore[assignment]  # all that is asked of it
        module.on_train_batch_start(None, batch)
        value = float(torch.rand(()))
        module.on_train_batch_end(None, None, batch)
        return value

    torch.manual_seed(3)
    undisturbed = torch.rand(4)
    torch.manual_seed(3)
    places = [(0, 0, 0), (0, 1, 0), (1, 1, 0), (0, 0, 1)]
    values = [drawn(*place) for place in places]
    assert torch.equal(torch.rand(4), undisturbed)
    assert len(set(values)) == len(values)
    assert values == [drawn(*place) for place in places]
    torch.manual_seed(4)
    assert drawn(0, 0, 0) not in values


class SaveAfter(Callback):
    """Saves after one batch, wherever the window stands."""

    def __init__(self, batch: int, path: Path) -> None:
        self.batch, self.path = batch, path

    @override
    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.fit_loop.total_batch_idx == self.batch:
            trainer.save_checkpoint(self.path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize(
    ("ranks", "batch"), [(1, 11), pytest.param(2, 10, marks=[pytest.mark.slow, pytest.mark.ddp])]
)
def test_a_checkpoint_inside_an_accumulation_window_holds_its_gradients(
    ranks: int, batch: int, tied_folder: str, tmp_path: Path
) -> None:
    run, path = Run.make(tmp_path / "run", tied_folder), tmp_path / "inside.ckpt"
    options: dict[str, Any] = {} if ranks == 1 else {"strategy": "ddp_fork", "devices": ranks}
    ends = []
    for saving, resumed in ((SaveAfter(batch, path), None), (SaveAfter(-1, path), str(path))):
        torch.manual_seed(7)
        module = run.module()
        run.trainer(saving, **options).fit(module, datamodule=run.data(), ckpt_path=resumed)
        ends.append(module.state_dict())
    window = torch.load(path, weights_only=True)[WINDOW_KEY]
    assert len(window["counts"]) == 1
    assert window["gradients"]
    for name, value in ends[0].items():  # the mean of ranks rounds once more
        torch.testing.assert_close(ends[1][name], value, rtol=0, atol=0 if ranks == 1 else 1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_an_open_window_goes_on_with_as_many_batches_only(tied_folder: str, tmp_path: Path) -> None:
    run, path = Run.make(tmp_path / "run", tied_folder), tmp_path / "inside.ckpt"
    run.trainer(SaveAfter(2, path)).fit(run.module(), datamodule=run.data())
    assert torch.load(path, weights_only=True)[WINDOW_KEY]["batches"] == 2
    with pytest.raises(MisconfigurationException, match=r"between the 2 batches .* keep 2"):
        run.trainer(accumulate_grad_batches=4).fit(
            run.module(), datamodule=run.data(), ckpt_path=str(path)
        )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_run_with_scheduled_windows_is_resumed_inside_an_epoch(
    tied_folder: str, tmp_path: Path
) -> None:
    run, path = Run.make(tmp_path / "run", tied_folder), tmp_path / "inside.ckpt"
    ends = []
    for saving, resumed in ((SaveAfter(12, path), None), (SaveAfter(-1, path), str(path))):
        torch.manual_seed(7)
        module, windows = run.module(), GradientAccumulationScheduler({0: 1, 1: 3})
        trainer = run.trainer(saving, windows, accumulate_grad_batches=1)
        trainer.fit(module, datamodule=run.data(), ckpt_path=resumed)
        ends.append(module.state_dict())
    assert torch.load(path, weights_only=True)["epoch"] == 1
    assert is_same(*ends)


def test_a_batch_that_fails_does_not_undo_the_seed_of_the_next_fit() -> None:
    module = ExactSteps()
    module._trainer = stub(0, 0)  # type: ignore[assignment]  # all that is asked of it
    module.on_train_batch_start(None, 0)  # and the batch fails
    torch.manual_seed(2)
    expected = torch.get_rng_state()
    module.on_train_start()
    module.on_train_batch_start(None, 0)
    module.on_train_batch_end(None, None, 0)
    assert torch.equal(torch.get_rng_state(), expected)
    copy.deepcopy(module)
