from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.nn import functional as F

from lightning_vocab.distillation import DistillationModule
from lightning_vocab.rows.split import base_view
from lightning_vocab.vocabulary import AddTokens, ContinuedBPE
from tests.conftest import TEXTS, case
from tests.distillation.conftest import make_data, make_module, make_trainer, write_lines

State = dict[str, Tensor]
UNTIED = pytest.mark.parametrize(
    "base_folder", [case(False, quick=True, id="untied")], indirect=True
)
UNTIED_IS_QUICK = pytest.mark.parametrize(
    "base_folder",
    [case(True, quick=False, id="tied"), case(False, quick=True, id="untied")],
    indirect=True,
)


def fit(base: str, folder: Path, *callbacks: Callback, **changes: Any) -> DistillationModule:
    module = make_module(base, folder, **changes)
    make_trainer(folder, *callbacks).fit(module, datamodule=make_data(base, folder))
    return module


def state_of(module: DistillationModule) -> State:
    model = module.language_model
    return {name: value.clone() for name, value in model.state_dict(keep_vars=False).items()}


def first_state(base: str, folder: Path) -> State:
    """The expanded model before training; the expansion folder must stand."""
    module = make_module(base, folder)
    module.configure_model()
    return state_of(module)


class Figures(Callback):
    """What was logged at every step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        self.steps.append({k: float(v) for k, v in trainer.callback_metrics.items()})


class SaveRank(Callback):
    """Writes the model of each rank to a file at the end of the fit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DistillationModule)
        torch.save(state_of(pl_module), self.folder / f"rank{trainer.global_rank}.pt")


@UNTIED_IS_QUICK
def test_only_new_rows_move_and_the_hidden_loss_falls(base_folder: str, text: Path) -> None:
    figures = Figures()
    module = fit(base_folder, text, figures)
    after, before = state_of(module), first_state(base_folder, text)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved
    assert all(name.endswith("rows.new") for name in moved)
    assert len(moved) == 2  # a tied matrix has two names, an untied model two matrices
    assert figures.steps[-1]["train/hidden_mse"] < 0.7 * figures.steps[0]["train/hidden_mse"]
    assert all(step["train/loss_nats"] > 0 for step in figures.steps)


def write_seldom(folder: Path) -> None:
    """Text in which some of the twelve tokens occur and others do not."""
    write_lines(folder / "train.jsonl", [*TEXTS, *["zebra vivid zebra vivid"] * 9])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*occur fewer than 4 times")
@pytest.mark.parametrize("output_loss", [case(True, quick=True), case(False, quick=False)])
@UNTIED_IS_QUICK
def test_rows_of_seldom_tokens_stay_bit_for_bit_under_weight_decay(
    output_loss: bool, base_folder: str, text: Path
) -> None:
    write_seldom(text)
    module = make_module(base_folder, text, weight_decay_rows=0.5, output_loss=output_loss)
    data = make_data(base_folder, text)
    make_trainer(text).fit(module, datamodule=data)
    after, before = state_of(module), first_state(base_folder, text)
    new_ids = data.expanded.expansion.new_ids  # type: ignore[union-attr]  # it has grown
    is_held = torch.isin(torch.tensor(new_ids), torch.tensor(data.held_ids))
    assert 0 < int(is_held.sum()) < len(is_held)
    for name in after:
        if name.endswith("rows.new"):
            assert torch.equal(after[name][is_held], before[name][is_held])
            moved = (after[name] != before[name]).any(dim=1)
            assert bool(moved[~is_held].all()) or not output_loss  # then the head's stay, too
        else:
            assert torch.equal(after[name], before[name])


@torch.no_grad()
def naive_losses(module: DistillationModule, batch: dict[str, Tensor]) -> tuple[float, float]:
    """Hidden loss and next-token loss of the last layer, row for row without padding."""
    model = module.language_model.double().eval()
    squares: list[Tensor] = []
    nats: list[Tensor] = []
    for row in range(len(batch["input_ids"])):
        ids = batch["input_ids"][row][batch["attention_mask"][row] == 1].unsqueeze(0)
        pieces = batch["teacher_ids"][row][batch["teacher_mask"][row] == 1].unsqueeze(0)
        output = model(ids, output_hidden_states=True)
        with base_view(model):
            teacher = model(pieces, output_hidden_states=True).hidden_states[-1][0]
        for place, position in enumerate(batch["teacher_positions"][row].tolist()):
            if position >= 0:
                squares.append((output.hidden_states[-1][0, place] - teacher[position]) ** 2)
        nats.append(F.cross_entropy(output.logits[0, :-1], ids[0, 1:], reduction="none"))
    return float(torch.cat(squares).mean()), float(torch.cat(nats).mean())


@UNTIED_IS_QUICK
def test_the_losses_are_the_formula_in_float64(base_folder: str, text: Path) -> None:
    data = make_data(base_folder, text)
    data.prepare_data()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    module = make_module(base_folder, text, output_loss_weight=0.5)
    module.configure_model()
    logged: dict[str, float] = {}
    module.log = lambda name, value, **_: logged.update({name: value.item()})  # type: ignore[method-assign]  # no trainer
    loss = module.training_step(batch, 0).item()
    mse, nats = naive_losses(module, batch)
    assert logged["train/hidden_mse"] == pytest.approx(mse, rel=1e-4)
    assert logged["train/loss_nats"] == pytest.approx(nats, rel=1e-4)
    assert loss == pytest.approx(1.5 * mse, rel=1e-4)


@pytest.mark.slow
def test_a_token_of_one_piece_with_its_row_has_no_loss_at_all(tied_folder: str, text: Path) -> None:
    write_lines(text / "train.jsonl", ["the <|x|> cat <|x|> sat"] * 4)
    data = make_data(tied_folder, text, extender=AddTokens(["<|x|>"]))
    data.prepare_data()
    data.setup("fit")
    module = make_module(tied_folder, text)
    module.configure_model()
    batch = next(iter(data.train_dataloader()))
    piece = 65
    student = batch["input_ids"]
    (new_id,) = data.expanded.expansion.new_ids  # type: ignore[union-attr]  # it has grown
    batch["teacher_ids"] = torch.where(student == new_id, piece, student)
    batch["teacher_mask"] = batch["attention_mask"]
    places = torch.arange(student.shape[1]).expand_as(student)
    batch["teacher_positions"] = torch.where(batch["attention_mask"] == 1, places, -100)
    rows, _ = module._rows
    with torch.no_grad():
        rows.new[0] = rows.old[piece]
    module.log = lambda *_, **__: None  # type: ignore[method-assign]  # no trainer
    assert module.training_step(batch, 0).item() == 0.0


@pytest.mark.slow
@UNTIED
def test_the_output_loss_sends_no_gradient_into_the_hidden_states(
    base_folder: str, text: Path
) -> None:
    data = make_data(base_folder, text)
    data.prepare_data()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    gradients = {}
    for choice in (True, False):
        module = make_module(base_folder, text, output_loss=choice)
        module.configure_model()
        module.log = lambda *_, **__: None  # type: ignore[method-assign]  # no trainer
        module.training_step(batch, 0).backward()  # type: ignore[no-untyped-call]  # torch's
        inputs, outputs = module._rows
        gradients[choice] = (inputs.new.grad, outputs.new.grad, outputs.new.requires_grad)
    assert torch.equal(gradients[True][0], gradients[False][0])  # type: ignore[arg-type]  # both are there
    assert gradients[True][1] is not None
    assert gradients[False][1:] == (None, False)


@pytest.mark.slow
@pytest.mark.parametrize("layer", [case(1, quick=True), case(-2, quick=False)])
def test_a_lower_layer_can_be_matched(layer: int, tied_folder: str, text: Path) -> None:
    figures = Figures()
    fit(tied_folder, text, figures, layer=layer)
    assert figures.steps[-1]["train/hidden_mse"] < figures.steps[0]["train/hidden_mse"]


@pytest.mark.slow
@UNTIED
def test_a_run_resumed_within_an_epoch_ends_as_one_that_was_not(
    base_folder: str, text: Path
) -> None:
    straight = fit(base_folder, text)
    saver = ModelCheckpoint(text / "saved", every_n_train_steps=3, save_top_k=-1)
    first = make_module(base_folder, text)
    trainer = make_trainer(text, saver, max_steps=3, enable_checkpointing=True)
    trainer.fit(first, datamodule=make_data(base_folder, text))
    assert trainer.num_training_batches > 3  # the checkpoint stands within an epoch
    resumed = make_module(base_folder, text)
    make_trainer(text, saver, enable_checkpointing=True).fit(
        resumed,
        datamodule=make_data(base_folder, text),
        ckpt_path=str(text / "saved" / "epoch=0-step=3.ckpt"),
    )
    ours, theirs = state_of(resumed), state_of(straight)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
@pytest.mark.parametrize(
    "precision", [case("bf16-mixed", quick=True), case("bf16-true", quick=False)]
)
@UNTIED
def test_it_trains_in_half_precision(precision: str, base_folder: str, text: Path) -> None:
    figures = Figures()
    dtype = "bfloat16" if precision == "bf16-true" else "float32"
    module = make_module(base_folder, text, dtype=dtype)
    trainer = make_trainer(text, figures, precision=precision, max_steps=12)
    trainer.fit(module, datamodule=make_data(base_folder, text))
    assert (module._rows[0].new.dtype, str(module._rows[0].old.dtype)) == (
        torch.float32,
        f"torch.{dtype}",
    )
    assert figures.steps[-1]["train/hidden_mse"] < figures.steps[0]["train/hidden_mse"]


@pytest.mark.slow
def test_dropout_touches_neither_student_nor_teacher(tied_folder: str, text: Path) -> None:
    module = make_module(tied_folder, text)
    data = make_data(tied_folder, text)
    data.prepare_data()
    data.setup("fit")
    module.configure_model()
    module.log = lambda *_, **__: None  # type: ignore[method-assign]  # no trainer
    for layer in module.language_model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    batch = next(iter(data.train_dataloader()))
    module.train()
    assert module.training_step(batch, 0).item() == module.training_step(batch, 0).item()
    assert module.language_model.training


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*occur fewer than 4 times")
@pytest.mark.parametrize("output_loss", [True, False])
@UNTIED
def test_two_processes_end_bit_equal(output_loss: bool, base_folder: str, text: Path) -> None:
    write_seldom(text)
    torch.set_num_threads(1)  # forked children of a threaded parent would wait for its threads
    module = make_module(base_folder, text, output_loss=output_loss)
    data = make_data(base_folder, text, batch_size=2)
    make_trainer(text, SaveRank(text), strategy="ddp_fork", devices=2).fit(module, datamodule=data)
    first, second = (torch.load(text / f"rank{rank}.pt") for rank in (0, 1))
    before = first_state(base_folder, text)
    assert all(torch.equal(first[name], second[name]) for name in before)
    assert any(not torch.equal(first[name], before[name]) for name in before)


# --- a real model --------------------------------------------------------------------------------


@pytest.mark.assets
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*occur fewer than 4 times")
def test_the_stage_lowers_the_bits_per_byte_of_a_real_model(assets: Path, text: Path) -> None:
    base, stories = str(assets / "lm/stories260K"), str(assets / "text/tinystories.jsonl")
    data = make_data(
        base,
        text,
        extender=ContinuedBPE(num_new_tokens=100),
        train={"path": stories, "split": "train[:200]"},
        extend_on={"path": stories, "split": "train[:200]"},
        val={"new": {"path": stories, "split": "train[200:220]"}},
        num_snippets=30,
        snippet_length=50,
        block_size=256,
        batch_size=16,
    )
    module = make_module(base, text, lr_new_rows=1e-2)
    trainer = make_trainer(text, max_steps=60, limit_val_batches=1.0)
    data.prepare_data()
    module.configure_model()
    before = trainer.validate(module, datamodule=data, verbose=False)[0]
    trainer.fit(module, datamodule=data)
    after = trainer.validate(module, datamodule=data, verbose=False)[0]
    assert after["val/bits_per_byte/new"] < before["val/bits_per_byte/new"]
