from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lightning_vocab.callbacks import FreezeBackbone, GradMaskNewRows, UnfreezeAt
from lightning_vocab.vocabulary import save_expansion
from tests.callbacks.modules import NEW_IDS, NUM_ROWS, Options, PicoModule, SaveAt, fit
from tests.conftest import make_model, make_tokenizer
from tests.expanded import make_expanded

OLD_IDS = sorted(set(range(NUM_ROWS)) - set(NEW_IDS))
TIES = pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
RESUMING = pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before")


def matrices(module: PicoModule) -> list[Tensor]:
    """Copies of the embedding, the head and its bias, of an ordinary model."""
    module.configure_model()
    head = module.model.lm_head
    parts = [module.model.get_input_embeddings().weight, head.weight, head.bias]
    return [part.detach().clone() for part in parts if part is not None]


def same_rows(left: list[Tensor], right: list[Tensor], ids: list[int]) -> list[bool]:
    return [torch.equal(a[ids], b[ids]) for a, b in zip(left, right, strict=True)]


@TIES
@pytest.mark.parametrize("optimizer", ["fused", "adamw", "sgd"])
def test_old_rows_stay_bitwise_equal(optimizer: Any, tied: bool, tmp_path: Path) -> None:
    module = PicoModule(tied=tied, split=False, optimizer=optimizer)
    before = matrices(module)
    options: Options = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.5, "max_steps": 6}
    fit(tmp_path, module, [GradMaskNewRows(new_ids=NEW_IDS)], **options)
    after = matrices(module)
    assert all(same_rows(before, after, OLD_IDS))
    for new_id in NEW_IDS:
        assert not any(same_rows(before, after, [new_id]))


@RESUMING
@TIES
def test_momentum_from_before_the_mask_moves_no_old_row(tied: bool, tmp_path: Path) -> None:
    path = tmp_path / "unmasked.ckpt"
    first = PicoModule(tied=tied, split=False)
    state = fit(tmp_path, first, [SaveAt(path, 3)], max_steps=3)["optimizer"]
    assert all(entry["exp_avg"].abs().sum() > 0 for entry in state["state"].values())
    before = matrices(first)
    module = PicoModule(tied=tied, split=False)
    mask = GradMaskNewRows(new_ids=NEW_IDS)
    fit(tmp_path, module, [mask], ckpt_path=str(path), max_steps=6)
    assert all(same_rows(before, matrices(module), OLD_IDS))


@TIES
def test_new_rows_move_as_those_of_a_split_model_do(tied: bool, tmp_path: Path) -> None:
    """The clipped norm counts new rows alone, so both models take the same steps."""
    options: Options = {"gradient_clip_val": 0.01, "max_steps": 5}
    split = PicoModule(tied=tied, optimizer="sgd")
    fit(tmp_path, split, [FreezeBackbone()], **options)
    module = PicoModule(tied=tied, split=False, optimizer="sgd")
    fit(tmp_path, module, [FreezeBackbone(), GradMaskNewRows(new_ids=NEW_IDS)], **options)
    head = split.model.lm_head.rows.merged()
    wanted = [split.model.get_input_embeddings().rows.merged()[0], *head]
    found = matrices(module)
    for expected, actual in zip((part for part in wanted if part is not None), found, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-7, rtol=1e-5)


def test_old_rows_are_free_from_until_step_on(tmp_path: Path) -> None:
    held, freed = (PicoModule(split=False) for _ in range(2))
    before = matrices(held)
    for module, steps in ((held, 3), (freed, 4)):
        mask = GradMaskNewRows(until_step=3, new_ids=NEW_IDS)
        fit(tmp_path, module, [mask], max_steps=steps)
    assert all(same_rows(before, matrices(held), OLD_IDS))
    assert not any(same_rows(before, matrices(freed), [OLD_IDS[0]]))


@TIES
def test_mask_freezes_the_old_rows_of_a_split_model(tied: bool, tmp_path: Path) -> None:
    state = fit(tmp_path, PicoModule(tied=tied), [GradMaskNewRows()], max_steps=2)
    groups = ("backbone_decay", "backbone_no_decay", "new_rows")
    assert state["trained"] == [(0, groups), (1, groups)]
    (old,) = (g["params"] for g in state["optimizer"]["param_groups"] if g["name"] == "old_rows")
    assert not set(old) & set(state["optimizer"]["state"])


@pytest.mark.parametrize("order", [1, -1], ids=["forth", "back"])
@pytest.mark.parametrize(
    ("until_step", "first_step_of_old_rows"), [(1, 2), (2, 2), (4, 4)], ids=["1", "2", "4"]
)
def test_old_rows_train_when_phase_and_mask_allow(
    until_step: int, first_step_of_old_rows: int, order: int, tmp_path: Path
) -> None:
    callbacks = [FreezeBackbone(), UnfreezeAt(2), GradMaskNewRows(until_step=until_step)]
    trained = fit(tmp_path, PicoModule(), callbacks[::order], max_steps=6)["trained"]
    with_old = [step for step, groups in trained if "old_rows" in groups]
    with_backbone = [step for step, groups in trained if "backbone_decay" in groups]
    assert (with_old[0], with_backbone[0]) == (first_step_of_old_rows, 2)


def test_mask_and_freeze_train_new_rows_alone(tmp_path: Path) -> None:
    module = PicoModule(tied=False, split=False)
    module.configure_model()
    before = {name: weight.clone() for name, weight in module.state_dict().items()}
    rows = matrices(module)
    callbacks = [GradMaskNewRows(new_ids=NEW_IDS), FreezeBackbone()]
    fit(tmp_path, module, callbacks, max_steps=3)
    after = module.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {
        "model.model.embed_tokens.weight",
        "model.lm_head.weight",
        "model.lm_head.bias",
    }
    assert all(same_rows(rows, matrices(module), OLD_IDS))


def test_ids_come_from_the_expansion_folder(tmp_path: Path) -> None:
    folder = save_expansion(make_expanded(make_tokenizer(300), ["<a>", "<b>"]), tmp_path / "grown")
    module = PicoModule(split=False)
    module.model = make_model(302).train()
    before = matrices(module)
    fit(tmp_path, module, [GradMaskNewRows(expansion_dir=str(folder))], max_steps=2)
    after = matrices(module)
    assert all(same_rows(before, after, list(range(300))))
    assert not any(same_rows(before, after, [300]) + same_rows(before, after, [301]))


def test_rows_are_free_after_the_fit(tmp_path: Path) -> None:
    module = PicoModule(split=False)
    fit(tmp_path, module, [GradMaskNewRows(new_ids=NEW_IDS)], max_steps=2)
    before = matrices(module)
    (optimizer,) = module.trainer.optimizers
    module.loss(0).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    optimizer.step()
    assert not any(same_rows(before, matrices(module), [OLD_IDS[0]]))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (GradMaskNewRows(), "Give new_ids or expansion_dir"),
        (GradMaskNewRows(new_ids=[NUM_ROWS]), f"expected ids below {NUM_ROWS}"),
        (GradMaskNewRows(new_ids=[500, 600]), f"expected ids below {NUM_ROWS}"),
        (GradMaskNewRows(new_ids=list(range(NUM_ROWS))), "got all 43 rows as new"),
    ],
    ids=["no ids", "one outside", "all outside", "no old row"],
)
def test_ids_that_do_not_fit_are_refused(
    mask: GradMaskNewRows, message: str, tmp_path: Path
) -> None:
    with pytest.raises(MisconfigurationException, match=message):
        fit(tmp_path, PicoModule(split=False), [mask])


def test_other_ids_than_the_split_rows_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="expected the 4 new ids"):
        fit(tmp_path, PicoModule(), [GradMaskNewRows(new_ids=[40, 41, 42])])


def test_optimizer_without_the_rows_is_refused(tmp_path: Path) -> None:
    frozen = ["model.embed_tokens.weight"]
    with pytest.raises(MisconfigurationException, match="expected the embedding or the head"):
        fit(
            tmp_path,
            PicoModule(split=False, frozen_by_user=frozen),
            [GradMaskNewRows(new_ids=NEW_IDS)],
        )


def test_sparse_embedding_is_refused(tmp_path: Path) -> None:
    module = PicoModule(split=False)
    module.configure_model()
    module.model.get_input_embeddings().sparse = True
    with pytest.raises(MisconfigurationException, match="knows dense embeddings"):
        fit(tmp_path, module, [GradMaskNewRows(new_ids=NEW_IDS)])


def test_callbacks_that_name_different_models_are_refused(tmp_path: Path) -> None:
    module = PicoModule(split=False)
    module.configure_model()
    other = PicoModule(split=False)
    other.configure_model()
    module.teacher = other.model
    callbacks = [FreezeBackbone("model"), GradMaskNewRows(new_ids=NEW_IDS, attribute="teacher")]
    with pytest.raises(MisconfigurationException, match="must name the same model"):
        fit(tmp_path, module, callbacks)


@pytest.mark.parametrize(
    "arguments",
    [
        {"until_step": 0},
        {"new_ids": []},
        {"new_ids": [-1]},
        {"new_ids": [1], "expansion_dir": "folder"},
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Expected"):
        GradMaskNewRows(**arguments)
