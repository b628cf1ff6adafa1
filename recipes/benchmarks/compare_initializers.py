"""Every initializer on one base and one expansion: the whole curve, and what is in the rows.

    python recipes/benchmarks/compare_initializers.py stories-en stories-th demo-code

Trains the new rows alone (stage 1), then everything (stage 2), on the same text in the same order
for all methods of a seed. Bits per byte of held-out new and old text at several steps, because the
ranking at step 0 misleads; the probability of all new tokens together right after surgery; rank and
nearest old row of the new rows; CPU seconds. The seed draws the rows and orders the text.

`result.json` is written after every run, and runs that it holds are not made again. All but
`demo-code` need a folder with stored models and text: --assets, or LIGHTNING_VOCAB_ASSETS.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, cast

import datasets
import torch
import transformers
from initializer_cases import METHODS, SETTINGS, Place, write_text
from initializer_tables import figure, notes, tables
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from rich.console import Console
from torch.utils.data import DataLoader
from typing_extensions import override

from lightning_vocab.callbacks import FreezeBackbone, UnfreezeAt
from lightning_vocab.data.rows import IGNORED
from lightning_vocab.functional import effective_rank, nearest_cosine, singular_values
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.probing.trials import Timed
from lightning_vocab.rows import find_split
from lightning_vocab.schedules import WarmupCosine
from lightning_vocab.vocabulary import ContinuedBPE


@dataclass
class Run:
    """What one run of one method and seed gave."""

    method: str
    seed: int
    steps: list[int] = field(default_factory=list)
    new: list[float] = field(default_factory=list)
    old: list[float] = field(default_factory=list)
    effective_rank: list[float] = field(default_factory=list)
    nearest_old_cosine: list[float] = field(default_factory=list)
    mass_of_new_tokens: float = 0.0
    cpu_seconds: float = 0.0
    coverage: float | None = None
    coverage_in_words: str = ""
    space_in_words: str = ""


class Points(Callback):
    """Scores the model at given steps, and looks at the rows at the first and the last."""

    def __init__(self, run: Run, points: list[int]) -> None:
        self.run, self.points = run, points

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._score(trainer, pl_module)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step in self.points:
            self._score(trainer, pl_module)

    def _score(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, VocabExpansionModule)
        loaders = trainer.datamodule.val_dataloader()  # type: ignore[attr-defined]  # given to fit
        new, old = (float(module.bits_per_byte(loader).compute()) for loader in loaders)
        self.run.steps.append(trainer.global_step)
        self.run.new.append(new)
        self.run.old.append(old)
        if trainer.global_step == 0:
            self.run.mass_of_new_tokens = mass_of_new_tokens(module, loaders[0])
        if trainer.global_step in (0, self.points[-1]):
            look_at_rows(self.run, module)


@torch.no_grad()
def mass_of_new_tokens(module: VocabExpansionModule, loader: DataLoader[Any]) -> float:
    """Mean over the scored positions of the probability of all new tokens together."""
    total, count = 0.0, 0
    for batch in loader:
        of_new_rows = module.loss.shares(batch).mass[..., 1]
        is_scored = batch["labels"][:, 1:] != IGNORED
        total, count = total + float(of_new_rows[is_scored].sum()), count + int(is_scored.sum())
    return total / count


@torch.no_grad()
def look_at_rows(run: Run, module: VocabExpansionModule) -> None:
    """Effective rank and mean cosine to the nearest old row, of the new input rows."""
    split = find_split(module.language_model)
    assert split is not None
    rows = split[0].rows
    run.effective_rank.append(float(effective_rank(singular_values(rows.new))))
    run.nearest_old_cosine.append(float(nearest_cosine(rows.new, rows.old).values.mean()))


def be_quiet() -> None:
    """One line a run, and one thread: CPU seconds can be compared, and the runs share the cores."""
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()


def quiet_trainer(**options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_epochs=-1,
        limit_val_batches=0,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def measure(place: Place, method: str, seed: int) -> Run:
    """Train from one method's rows."""
    be_quiet()
    seed_everything(seed, verbose=False)
    setting, run = place.setting, Run(method, seed)
    timed = Timed(METHODS[method].make(place))
    later = dict.fromkeys(("old_rows", "backbone_decay", "backbone_no_decay"), setting.stage_1)
    steps = setting.stage_1 + setting.stage_2
    warmup = max(1, steps // 20)
    schedule = partial(WarmupCosine, total_steps=steps, warmup_steps=warmup, starts=later)
    module = VocabExpansionModule(
        base=place.path(setting.base),
        expansion_dir=str(place.folder / "expansion"),
        initializer=timed,
        optimizer=cast(OptimizerCallable, partial(torch.optim.AdamW, betas=(0.9, 0.95))),
        lr_scheduler=cast(LRSchedulerCallable, schedule),
        lr_new_rows=3e-3,
        lr_old_rows=3e-4,
        lr_backbone=3e-4,
        initializer_seed=seed,
    )
    data = place.data(seed=seed)
    began = time.process_time()
    if (stage := METHODS[method].stage) is not None:
        module.configure_model()
        stage(module, data, place, seed)
        run.cpu_seconds = time.process_time() - began
    callbacks = [FreezeBackbone(), UnfreezeAt(step=setting.stage_1), Points(run, setting.points)]
    quiet_trainer(max_steps=steps, callbacks=callbacks).fit(module, datamodule=data)
    run.cpu_seconds = run.cpu_seconds or timed.seconds
    coverage = getattr(timed.initializer, "coverage", None)
    run.coverage = None if coverage is None else coverage.share
    run.coverage_in_words = "" if coverage is None else str(coverage)
    run.space_in_words = getattr(timed.initializer, "known", None) or ""
    return run


def prepare(place: Place) -> dict[str, Any]:
    """Write the text, grow the vocabulary, tokenise, and score the base: once for a setting."""
    place.folder.mkdir(parents=True, exist_ok=True)
    setting = place.setting
    write_text(place, setting.new, "new", "train", setting.train_bytes)
    write_text(place, setting.old, "old", "old_train", setting.old_train_bytes)
    data = place.data(ContinuedBPE(num_new_tokens=setting.num_new_tokens))
    data.prepare_data()
    data.setup("fit")
    module = VocabExpansionModule(base=place.path(setting.base))
    module.configure_model()
    new, old = (float(module.bits_per_byte(each).compute()) for each in data.base_val_dataloaders())
    assert data.expanded is not None
    expansion = data.expanded.expansion
    return {
        "setting": {**asdict(setting), "points": setting.points},
        "base": {"new": new, "old": old},
        "num_old": expansion.base_len,
        "num_new": len(expansion.tokens),
        "bound_of_mean_rows": len(expansion.tokens) / (expansion.base_len + len(expansion.tokens)),
        "fertility": data.fertility(),
        "runs": {},
    }


def quick(place: Place) -> Place:
    """The same with hardly any training: a smoke test."""
    small = replace(place.setting, stage_1=4, stage_2=4, num_new_tokens=60, val_bytes=4_000)
    return replace(place, setting=replace(small, train_bytes=100_000, old_train_bytes=20_000))


def load(place: Place, file: Path) -> dict[str, Any]:
    """What was measured before, or what is prepared now; the settings must be the same."""
    if not file.exists():
        return prepare(place)
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    now = json.loads(json.dumps({**asdict(place.setting), "points": place.setting.points}))
    if found["setting"] != now:
        raise SystemExit(f"{file} holds runs of another setting: choose another --out.")
    return found


def save(found: dict[str, Any], file: Path) -> None:
    partial_file = file.with_name(file.name + ".partial")
    partial_file.write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")
    partial_file.replace(file)


def compare(place: Place, methods: list[str], seeds: int, jobs: int) -> None:
    """Make the runs of a setting that are not made yet, and show all of it."""
    file = place.folder / "result.json"
    found = load(place, file)
    save(found, file)
    usable = [name for name in methods if getattr(place.setting, METHODS[name].needs or "width")]
    wanted = [(name, seed) for seed, name in product(range(1, seeds + 1), usable)]
    missing = [each for each in wanted if f"{each[0]}/{each[1]}" not in found["runs"]]
    began = time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn) as pool:
        running = [pool.submit(measure, place, *each) for each in missing]
        for done in as_completed(running):
            run = done.result()
            found["runs"][f"{run.method}/{run.seed}"] = asdict(run)
            save(found, file)
            said = f"{place.name}: {run.method}, seed {run.seed}: new text {run.new[-1]:.4f}"
            print(f"{said}, {time.monotonic() - began:.0f} s", flush=True)
    console = Console(width=130)
    for table in tables(place.name, found):
        console.print(table)
    left_out = {name: METHODS[name].needs for name in methods if name not in usable}
    for line in notes(found, left_out):
        console.print(line, markup=False, highlight=False)
    figure(place.name, found, place.folder / "curves.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", nargs="*", default=[], help=", ".join(SETTINGS))
    parser.add_argument("--assets", default=os.environ.get("LIGHTNING_VOCAB_ASSETS"))
    parser.add_argument("--only", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, on a core each")
    parser.add_argument("--quick", action="store_true", help="hardly any training")
    parser.add_argument("--out", default="runs/compare_initializers")
    options = parser.parse_args()
    names = options.settings or ["demo-code"]
    if unknown := set(names) - set(SETTINGS):
        parser.error(f"no setting {sorted(unknown)}: expected some of {', '.join(SETTINGS)}")
    texts = [str(asdict(SETTINGS[name])) for name in names]
    if any("@" in text for text in texts) and not Path(options.assets or "").is_dir():
        parser.error("give --assets FOLDER or set LIGHTNING_VOCAB_ASSETS")
    be_quiet()
    for name in names:
        place = Place(name, SETTINGS[name], options.assets or "", Path(options.out) / name)
        place = quick(place) if options.quick else place
        compare(place, options.only, options.seeds, options.jobs)


if __name__ == "__main__":
    main()
