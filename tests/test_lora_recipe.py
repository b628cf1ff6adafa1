from __future__ import annotations

import copy
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors.torch import load_file
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader, default_collate
from transformers import AutoModelForCausalLM
from typing_extensions import override

from lightning_vocab.callbacks import (
    ExportHuggingFace,
    FreezeBackbone,
    GradMaskNewRows,
    UnfreezeAt,
)
from lightning_vocab.data.loader import training_loader
from lightning_vocab.rows import is_tied
from lightning_vocab.schedules import WarmupCosine
from recipes.lora import LoRAExpansionModule, add_adapters, main, merged_copy
from tests.callbacks.modules import SaveAt
from tests.conftest import NEW_TEXTS
from tests.rows.bases import Kind, make_base
from tests.test_recipes import small

pytestmark = pytest.mark.slow  # importing peft takes seconds
RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "lora.yaml"
UNFREEZE, STEPS = 3, 6
STOPS = (2, 4)  # one in each stage
Weights = dict[str, Tensor]


class Watch(Callback):
    """Keeps the parameters as each stage finds them, and exports in the middle of stage 2."""

    def __init__(self, export: Path) -> None:
        self.seen: dict[int, Weights] = {}
        self.export = export

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, LoRAExpansionModule)
        if trainer.global_step in (0, UNFREEZE):
            self.seen[trainer.global_step] = weights(pl_module)
        if trainer.global_step == STEPS - 1:
            pl_module.export(str(self.export))


class WriteWeights(Callback):
    """Writes what each rank holds at the end, for the parent process to compare."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.save(weights(pl_module), self.folder / f"{trainer.global_rank}.pt")


@pytest.fixture(autouse=True)
def _command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["lora.py"])  # main(args) is called, not the shell


@dataclass(frozen=True)
class Run:
    base: str
    expansion: str
    module: LoRAExpansionModule
    trainer: Trainer
    seen: dict[int, Weights]
    folder: Path

    @property
    def export(self) -> Path:
        return self.folder / "export"


def weights(module: LightningModule) -> Weights:
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def changed(before: Weights, after: Weights) -> set[str]:
    return {name for name, value in after.items() if not torch.equal(value, before[name])}


def schedule(optimizer: Optimizer) -> WarmupCosine:
    return WarmupCosine(optimizer, STEPS, 1, starts={"old_rows": UNFREEZE, "adapters": UNFREEZE})


def make_module(base: str, expansion: str, **options: Any) -> LoRAExpansionModule:
    torch.manual_seed(5)
    return LoRAExpansionModule(
        base=base,
        expansion_dir=expansion,
        lora_rank=4,
        lr_new_rows=1e-2,
        lr_backbone=2e-2,
        lr_scheduler=schedule,
        **options,
    )


def rows() -> Any:
    ids = torch.randint(312, (2 * STEPS, 12), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": row, "labels": row} for row in ids]


def loader() -> DataLoader[Any]:
    collate: Any = default_collate
    return training_loader(rows(), collate, batch_size=2)


def make_trainer(folder: Path, *callbacks: Callback, **options: Any) -> Trainer:
    stages = [FreezeBackbone(), UnfreezeAt(UNFREEZE), GradMaskNewRows()]
    return Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
        default_root_dir=folder,
        callbacks=[*stages, *callbacks],
        **options,
    )


@pytest.fixture(scope="module")
def run(base_folder: str, expansion_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("lora")
    module, watch = make_module(base_folder, expansion_folder), Watch(folder / "midway")
    saving = [SaveAt(folder / f"{stop}.ckpt", stop) for stop in STOPS]
    trainer = make_trainer(folder, watch, ExportHuggingFace(str(folder / "export")), *saving)
    trainer.fit(module, loader())
    return Run(base_folder, expansion_folder, module, trainer, watch.seen, folder)


def test_new_rows_train_alone_then_with_the_adapters_and_nothing_else_moves(run: Run) -> None:
    last = weights(run.module)
    new = {name for name in last if name.endswith("rows.new")}
    adapters = {name for name in last if "lora_" in name}
    assert len(adapters) == 2 * 2 * 7  # two matrices for seven linear layers in each of two blocks
    assert changed(run.seen[0], run.seen[UNFREEZE]) == new
    assert changed(run.seen[UNFREEZE], last) == new | adapters
    assert run.module.loss.is_streamed


def test_the_optimizer_has_named_groups_and_a_state_for_what_trained_alone(run: Run) -> None:
    (optimizer,) = run.trainer.optimizers
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert list(groups) == ["new_rows", "old_rows", "adapters"]
    assert [group["initial_lr"] for group in groups.values()] == [1e-2, 1e-4, 2e-2]
    assert {group["weight_decay"] for group in groups.values()} == {0.0}
    trained = [*groups["new_rows"]["params"], *groups["adapters"]["params"]]
    assert {id(p) for p in optimizer.state} == {id(p) for p in trained}


def test_the_export_is_a_plain_folder_with_the_logits_of_the_adapted_model(run: Run) -> None:
    names = set(load_file(run.export / "model.safetensors"))
    assert names == set(load_file(Path(run.base) / "model.safetensors"))
    assert not [path.name for path in run.export.iterdir() if "adapter" in path.name]
    assert "peft" not in json.dumps(json.loads((run.export / "config.json").read_text()))
    plain = AutoModelForCausalLM.from_pretrained(run.export).eval()
    adapted = copy.deepcopy(run.module.language_model).eval()
    assert is_tied(plain) == is_tied(adapted)
    ids = torch.randint(312, (4, 24), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = adapted(input_ids=ids).logits
        for layer in [part for part in adapted.modules() if hasattr(part, "lora_A")]:
            layer.enable_adapters(False)
        without = adapted(input_ids=ids).logits
        came = plain(input_ids=ids).logits
    # Merging rounds each weight anew, by 2**-24 of it: sums of 48 such products, logits below 1.
    torch.testing.assert_close(came, expected, rtol=0, atol=2e-6)
    assert (without - expected).abs().max() > 0.1  # the adapters do count


@pytest.mark.parametrize("kind", ["phi-bias", "gemma-scaled", "gpt2-tied"])
def test_merging_other_architectures_keeps_their_logits_and_copies_adapted_layers_alone(
    kind: Kind,
) -> None:
    model = make_base(kind)
    parts = {name: type(part).__name__ for name, part in model.base_model.named_modules()}
    linear = {name for name, kind in parts.items() if kind in ("Linear", "Conv1D")}
    add_adapters(model, 4, 8.0)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.1)
    merged, ids = merged_copy(model), torch.arange(24).view(2, 12)
    with torch.no_grad():
        came, expected = merged(input_ids=ids).logits, model(input_ids=ids).logits
    torch.testing.assert_close(came, expected, rtol=0, atol=2e-6)
    shared = {id(value) for value in model.parameters()}
    copied = {
        name for name, value in merged.base_model.named_parameters() if id(value) not in shared
    }
    assert {name.rpartition(".")[0] for name in copied} == linear


@pytest.mark.parametrize("stop", STOPS)
def test_a_resumed_run_equals_an_uninterrupted_one_that_was_exported_midway(
    stop: int, run: Run, tmp_path: Path
) -> None:
    resumed = make_module(run.base, run.expansion)
    torch.manual_seed(0)  # the first values of the adapters must come from the checkpoint
    path = run.folder / f"{stop}.ckpt"
    make_trainer(tmp_path).fit(resumed, loader(), ckpt_path=path, weights_only=True)
    assert changed(weights(run.module), weights(resumed)) == set()
    assert (run.folder / "midway" / "model.safetensors").is_file()


def test_a_checkpoint_of_other_adapters_is_refused(run: Run, tmp_path: Path) -> None:
    module = make_module(run.base, run.expansion, lora_alpha=8.0)
    with pytest.raises(ValueError, match=r"written with lora_alpha=32.0, this run has 8.0"):
        make_trainer(tmp_path).fit(module, loader(), ckpt_path=run.folder / "2.ckpt")


@pytest.mark.ddp
def test_two_ranks_agree_through_both_stages(
    tied_folder: str, expansion_folder: str, tmp_path: Path
) -> None:
    options = {"strategy": "ddp_fork", "devices": 2, "max_epochs": 4}
    trainer = make_trainer(tmp_path, WriteWeights(tmp_path), **options)
    trainer.fit(make_module(tied_folder, expansion_folder), DataLoader(rows(), batch_size=2))
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert changed(first, second) == set()


@pytest.mark.filterwarnings("ignore:.* occur fewer than 4 times in the training text")
def test_the_recipe_runs_through_both_stages_in_its_own_precision(
    tied_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"text": text}) + "\n" for text in NEW_TEXTS * 20]
    Path("text.jsonl").write_text("".join(lines), encoding="utf-8")
    config = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    config["trainer"]["callbacks"][1]["init_args"]["step"] = 1
    schedule = config["model"]["lr_scheduler"]["init_args"]
    schedule |= {"warmup_steps": 1, "starts": dict.fromkeys(schedule["starts"], 1)}
    Path("lora.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    kept = ("--trainer.precision", "--model.dtype")  # as the recipe has them
    options = [each for each in small("lora.yaml", tied_folder, True) if not each.startswith(kept)]
    main(["fit", "--config", "lora.yaml", *options, "--model.lr_backbone=0.1"])
    before = load_file(Path(tied_folder) / "model.safetensors")
    after = load_file("runs/lora/export/model.safetensors")
    still = {name for name in after if torch.equal(after[name], before[name].bfloat16())}
    assert {value.dtype for value in after.values()} == {torch.bfloat16}
    assert after.keys() == before.keys()
    assert still == {name for name in after if "norm" in name}


@pytest.mark.slow
def test_adapters_of_a_half_precision_base_are_float32(tied_folder: str) -> None:
    module = LoRAExpansionModule(base=tied_folder, dtype="bfloat16")
    module.configure_model()
    found = {name: value.dtype for name, value in module.named_parameters()}
    adapters = {name for name, dtype in found.items() if dtype == torch.float32}
    assert adapters == {name for name in found if "lora_" in name}


def test_the_recipe_parses_and_says_its_command_seed_rates_and_decay(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(RECIPE), "--print_config"])
    text, parsed = RECIPE.read_text(), yaml.safe_load(capsys.readouterr().out)["model"]
    given = yaml.safe_load(text)
    assert "python recipes/lora.py fit --config recipes/lora.yaml" in text
    assert isinstance(given["seed_everything"], int)
    said = {"lr_new_rows", "lr_backbone", "weight_decay_rows", "weight_decay_backbone"}
    assert said <= set(given["model"])
    assert {name: parsed[name] for name in said} == {name: given["model"][name] for name in said}


@pytest.mark.parametrize("targets", [["q_proj", "lm_head"], ["embed_tokens"], ["roj"], []])
def test_a_target_that_is_no_linear_layer_of_the_backbone_is_named(
    targets: list[str], tied_folder: str
) -> None:
    module = LoRAExpansionModule(base=tied_folder, target_modules=targets)
    with pytest.raises(ValueError, match=r"\(down_proj, .*, v_proj\), got .*leave it out for all"):
        module.configure_model()


def test_without_peft_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'lightning-vocab\[lora\]'"):
        LoRAExpansionModule()
