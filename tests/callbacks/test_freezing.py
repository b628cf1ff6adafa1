from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from lightning_vocab.callbacks import FreezeBackbone, UnfreezeAt
from tests.callbacks.modules import Options, PicoModule, fit, is_same, make_trainer

FROZEN = ("new_rows",)
EMBEDDINGS = ("new_rows", "old_rows")
FULL = ("backbone_decay", "backbone_no_decay", "new_rows", "old_rows")


def start_weights(module: PicoModule) -> dict[str, torch.Tensor]:
    module.configure_model()
    return {name: weight.clone() for name, weight in module.state_dict().items()}


class Watch(Callback):
    """Notes at each batch which parameters train, in the same order as ``named_parameters``."""

    def __init__(self) -> None:
        self.flags: list[list[bool]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.flags.append([p.requires_grad for p in pl_module.parameters()])


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_frozen_parameters_stay_bitwise_equal(tied: bool, tmp_path: Path) -> None:
    module = PicoModule(tied=tied)
    before = start_weights(module)
    options: Options = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.5, "max_steps": 5}
    fit(tmp_path, module, [FreezeBackbone()], **options)
    moved = {name for name, w in module.state_dict().items() if not torch.equal(w, before[name])}
    new = ("rows.new", "rows.new_bias")
    assert moved == {name for name in before if name.endswith(new)}


def test_optimizer_has_no_state_for_frozen_parameters(tmp_path: Path) -> None:
    state = fit(tmp_path, PicoModule(tied=False), [FreezeBackbone()], max_steps=3)["optimizer"]
    (new_rows,) = (group for group in state["param_groups"] if group["name"] == "new_rows")
    assert sorted(state["state"]) == sorted(new_rows["params"])


def test_stale_gradients_move_no_frozen_parameter(tmp_path: Path) -> None:
    class LeavesGradients(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            for parameter in pl_module.parameters():
                parameter.grad = torch.ones_like(parameter)

    class KeepsGradients(PicoModule):
        def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
            optimizer.zero_grad(set_to_none=False)  # AdamW decays what has a gradient of zero

    module = KeepsGradients()
    before = start_weights(module)
    fit(tmp_path, module, [LeavesGradients(), FreezeBackbone()], max_steps=1)
    moved = {name for name, w in module.state_dict().items() if not torch.equal(w, before[name])}
    assert moved == {name for name in before if name.endswith("rows.new")}


def test_several_unfreeze_callbacks_in_any_order(tmp_path: Path) -> None:
    runs = []
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        callbacks = [FreezeBackbone(), UnfreezeAt(2, phase="embeddings"), UnfreezeAt(4)]
        runs.append(fit(tmp_path, PicoModule(), [callbacks[i] for i in order], max_steps=6))
    phases = [FROZEN, FROZEN, EMBEDDINGS, EMBEDDINGS, FULL, FULL]
    assert runs[0]["trained"] == list(enumerate(phases))
    assert all(is_same(run, runs[0]) for run in runs[1:])


def test_furthest_phase_wins_over_a_later_smaller_one(tmp_path: Path) -> None:
    callbacks = [FreezeBackbone(), UnfreezeAt(1), UnfreezeAt(2, phase="embeddings")]
    assert fit(tmp_path, PicoModule(), callbacks, max_steps=3)["trained"][-1] == (2, FULL)


def test_epoch_trigger_counts_epochs(tmp_path: Path) -> None:
    trained = fit(tmp_path, PicoModule(), [UnfreezeAt(epoch=1), FreezeBackbone()])["trained"]
    assert trained == [(step, FROZEN if step < 5 else FULL) for step in range(8)]


def test_step_trigger_counts_optimizer_steps(tmp_path: Path) -> None:
    callbacks = [FreezeBackbone(), UnfreezeAt(2)]
    options: Options = {"accumulate_grad_batches": 2, "max_steps": 3}
    trained = fit(tmp_path, PicoModule(), callbacks, **options)["trained"]
    assert trained == [(0, FROZEN), (0, FROZEN), (1, FROZEN), (1, FROZEN), (2, FULL)]


def test_phase_never_changes_inside_an_accumulation_window(tmp_path: Path) -> None:
    module = PicoModule(scores=(1.0,))
    callbacks = [FreezeBackbone(), UnfreezeAt(monitor="val/score", patience=2)]
    # A validation after each batch: the third one makes the stall, between the halves of a window.
    options: Options = {
        "accumulate_grad_batches": 2,
        "val_check_interval": 1,
        "limit_val_batches": 1,
    }
    trained = fit(tmp_path, module, callbacks, max_steps=3, **options)["trained"]
    assert trained == [(0, FROZEN), (0, FROZEN), (1, FROZEN), (1, FROZEN), (2, FULL)]


@pytest.mark.parametrize(
    ("scores", "options", "unfreeze_step"),
    [
        ((3.0, 2.0, 2.0), {"patience": 1}, 15),
        ((3.0, 2.0, 1.0), {"patience": 1}, None),
        ((3.0, 2.0, 1.0), {"patience": 1, "mode": "max"}, 10),
        ((3.0, 2.9, 2.0), {"patience": 1, "min_delta": 0.5}, 10),
        ((2.0, float("nan"), float("nan")), {"patience": 2}, 15),
    ],
    ids=["stall", "improves", "max", "min_delta", "nan"],
)
def test_stall_of_a_metric_unfreezes(
    scores: tuple[float, ...], options: dict[str, Any], unfreeze_step: int | None, tmp_path: Path
) -> None:
    callbacks = [FreezeBackbone(), UnfreezeAt(monitor="val/score", **options)]
    module = PicoModule(scores=scores)
    trained = fit(tmp_path, module, callbacks, max_steps=16, limit_val_batches=1)["trained"]
    steps = [step for step, groups in trained if groups == FULL]
    assert (steps[0] if steps else None) == unfreeze_step


def test_sanity_check_is_no_observation(tmp_path: Path) -> None:
    unfreeze = UnfreezeAt(monitor="val/score", patience=1)
    options: Options = {"max_steps": 2, "limit_val_batches": 1, "num_sanity_val_steps": 1}
    fit(tmp_path, PicoModule(scores=(1.0,)), [FreezeBackbone(), unfreeze], **options)
    assert unfreeze.state_dict() == {"best": None, "num_stalled": 0, "is_due": False}


def test_missing_metric_names_those_that_were_logged(tmp_path: Path) -> None:
    callbacks = [FreezeBackbone(), UnfreezeAt(monitor="val/loss")]
    with pytest.raises(MisconfigurationException, match="'val/loss', got: val/score"):
        fit(tmp_path, PicoModule(scores=(1.0,)), callbacks, limit_val_batches=1)


def test_stall_without_validation_is_refused(tmp_path: Path) -> None:
    callbacks = [FreezeBackbone(), UnfreezeAt(monitor="val/score")]
    with pytest.raises(MisconfigurationException, match="expected a validation"):
        fit(tmp_path, PicoModule(), callbacks)


@pytest.mark.parametrize("schedule", ["lambda", "one_cycle"])
def test_schedule_survives_unfreeze(schedule: Any, tmp_path: Path) -> None:
    free = fit(tmp_path, PicoModule(schedule=schedule), [])
    staged = fit(tmp_path, PicoModule(schedule=schedule), [FreezeBackbone(), UnfreezeAt(3)])
    assert staged["lrs"] == free["lrs"]
    assert staged["optimizer"]["param_groups"] == free["optimizer"]["param_groups"]


def test_freeze_sees_layers_built_in_configure_model(tmp_path: Path) -> None:
    module = PicoModule()
    assert module.model is None
    assert fit(tmp_path, module, [FreezeBackbone()], max_steps=1)["trained"] == [(0, FROZEN)]


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_other_verbs_leave_requires_grad_as_found(verb: str, tmp_path: Path) -> None:
    class Complete(PicoModule):
        def test_step(self, *_: Any) -> None: ...

        def predict_step(self, *_: Any) -> int:
            return 0

    module = Complete(scores=(1.0,))
    module.configure_model()
    module.model.lm_head.requires_grad_(False)
    found = [parameter.requires_grad for parameter in module.parameters()]
    trainer = make_trainer(tmp_path, [FreezeBackbone(), UnfreezeAt(1)], limit_val_batches=1)
    getattr(trainer, verb)(module, module.val_dataloader())
    assert [parameter.requires_grad for parameter in module.parameters()] == found


def test_equal_values_are_not_one_parameter(tmp_path: Path) -> None:
    module = PicoModule(tied=False)
    module.configure_model()
    rows = module.model.lm_head.rows
    with torch.no_grad():
        rows.old[: len(rows.new)].copy_(rows.new)
        module.model.model.norm.weight.copy_(module.model.model.layers[0].input_layernorm.weight)
    callbacks = [FreezeBackbone(), UnfreezeAt(1, phase="embeddings"), UnfreezeAt(2)]
    trained = fit(tmp_path, module, callbacks, max_steps=3)["trained"]
    assert trained == [(0, FROZEN), (1, EMBEDDINGS), (2, FULL)]


def test_parameters_frozen_by_the_user_stay_frozen(tmp_path: Path) -> None:
    module = PicoModule(frozen_by_user=["model.norm.weight", "model.embed_tokens.rows.old"])
    watch = Watch()
    fit(tmp_path, module, [FreezeBackbone(), UnfreezeAt(1), watch], max_steps=2)
    names = [name for name, _ in module.named_parameters()]
    still = [name for name, trains in zip(names, watch.flags[1], strict=True) if not trains]
    assert still == ["model.model.embed_tokens.rows.old", "model.model.norm.weight"]


def test_fit_gives_the_parameters_back_as_found(tmp_path: Path) -> None:
    module = PicoModule(frozen_by_user=["model.norm.weight"])
    fit(tmp_path, module, [FreezeBackbone()], max_steps=1)
    assert [name for name, p in module.named_parameters() if not p.requires_grad] == [
        "model.model.norm.weight"
    ]


def test_failed_fit_gives_the_parameters_back_as_found(tmp_path: Path) -> None:
    class Failing(PicoModule):
        def training_step(self, *_: Any) -> torch.Tensor:
            raise RuntimeError("stop here")

    module = Failing()
    with pytest.raises(RuntimeError, match="stop here"):
        fit(tmp_path, module, [FreezeBackbone()])
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_parameters_outside_the_language_model_are_left_alone(tmp_path: Path) -> None:
    module = PicoModule()
    module.probe = torch.nn.Linear(2, 1)
    watch = Watch()
    fit(tmp_path, module, [FreezeBackbone(), watch], max_steps=1)
    names = [name for name, _ in module.named_parameters()]
    trains = [name for name, flag in zip(names, watch.flags[0], strict=True) if flag]
    assert trains == ["probe.weight", "probe.bias", "model.model.embed_tokens.rows.new"]


def test_attribute_names_one_of_two_models(tmp_path: Path) -> None:
    module = PicoModule()
    module.configure_model()
    other = PicoModule()
    other.configure_model()
    module.teacher = other.model
    watch = Watch()
    fit(tmp_path, module, [UnfreezeAt(9), FreezeBackbone("model"), watch], max_steps=1)
    assert watch.flags[0].count(True) == 1 + len(list(other.parameters()))


def test_ordinary_model_trains_its_whole_embedding(tmp_path: Path) -> None:
    callbacks = [FreezeBackbone(), UnfreezeAt(1)]
    trained = fit(tmp_path, PicoModule(split=False), callbacks, max_steps=2)["trained"]
    assert trained == [
        (0, ("embedding",)),
        (1, ("backbone_decay", "backbone_no_decay", "embedding")),
    ]


def test_embeddings_phase_of_an_ordinary_model_is_refused(tmp_path: Path) -> None:
    callbacks = [FreezeBackbone(), UnfreezeAt(1, phase="embeddings")]
    with pytest.raises(MisconfigurationException, match="expected split rows"):
        fit(tmp_path, PicoModule(split=False), callbacks)


def test_unfreeze_without_freeze_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="nothing to unfreeze"):
        fit(tmp_path, PicoModule(), [UnfreezeAt(1)])


def test_second_freeze_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="Expected one FreezeBackbone"):
        fit(tmp_path, PicoModule(), [FreezeBackbone(), FreezeBackbone("model")])


def test_freezing_nothing_is_refused(tmp_path: Path) -> None:
    module = PicoModule()
    module.configure_model()
    new = "model.model.embed_tokens.rows.new"
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name == new)
    with pytest.raises(MisconfigurationException, match="outside the new rows of LlamaForCausalLM"):
        fit(tmp_path, module, [FreezeBackbone()])


def test_training_nothing_is_refused(tmp_path: Path) -> None:
    module = PicoModule(frozen_by_user=["model.embed_tokens.rows.new"])
    with pytest.raises(MisconfigurationException, match="at least one trainable parameter"):
        fit(tmp_path, module, [FreezeBackbone()])


def test_two_equal_unfreeze_callbacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="more than one stateful callback"):
        make_trainer(tmp_path, [FreezeBackbone(), UnfreezeAt(2), UnfreezeAt(2)])


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"step": 1, "epoch": 1},
        {"step": 0},
        {"epoch": 0},
        {"monitor": "x", "patience": 0},
        {"monitor": "x", "min_delta": -1.0},
        {"monitor": "x", "mode": "up"},
        {"step": 1, "phase": "frozen"},
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Expected"):
        UnfreezeAt(**arguments)
