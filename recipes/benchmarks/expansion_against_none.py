"""Is the expansion worth it? The same base, text and CPU seconds, with and without new tokens.

    python recipes/benchmarks/expansion_against_none.py --base demo --train demo:code \
        --new demo:code --old demo:english --num-new-tokens 1000 --cpu-seconds 240

Both arms train on the same text until they have used the same CPU time in training steps
(validation not counted). Bits per byte can be compared across vocabularies; both curves, on the
new and on the old domain, go into a table, a JSON file and a PNG.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from rich.console import Console
from rich.table import Table

from lightning_vocab.callbacks import ExpansionReport, FreezeBackbone, UnfreezeAt
from lightning_vocab.data import TextSource
from lightning_vocab.datamodule import VocabDataModule
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.schedules import WarmupCosine
from lightning_vocab.vocabulary import ContinuedBPE


@dataclass
class Curve:
    """Bits per byte against the CPU seconds of the training steps so far."""

    name: str
    cpu_seconds: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    new_domain: list[float] = field(default_factory=list)
    old_domain: list[float] = field(default_factory=list)


class CpuBudget(Callback):
    """Validates at equal shares of a budget of CPU seconds, and stops when it is used up."""

    def __init__(self, curve: Curve, seconds: float, points: int) -> None:
        self.curve, self.seconds, self.points = curve, seconds, points
        self.used = 0.0
        self._began = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._measure(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._began = time.process_time()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.used += time.process_time() - self._began
        if self.used >= self.seconds * len(self.curve.steps) / self.points:
            self._measure(trainer, pl_module)
        trainer.should_stop = self.used >= self.seconds

    def _measure(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, VocabExpansionModule)
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by fit(datamodule=...)
        new, old = (
            float(pl_module.bits_per_byte(loader).compute()) for loader in data.val_dataloader()
        )
        self.curve.cpu_seconds.append(self.used)
        self.curve.steps.append(trainer.global_step)
        self.curve.new_domain.append(new)
        self.curve.old_domain.append(old)
        print(f"{self.curve.name}: {self.used:.0f} s, new {new:.4f}, old {old:.4f}", flush=True)


def source(text: str, max_documents: int | None = None) -> TextSource:
    """`PATH` or `PATH@SPLIT`, such as `thai.jsonl@train[:95%]`."""
    path, _, split = text.partition("@")
    return TextSource(path=path, split=split or None, max_documents=max_documents)


def run(options: argparse.Namespace, *, expanded: bool) -> tuple[Curve, ExpansionReport | None]:
    name = "expanded" if expanded else "not expanded"
    out = Path(options.out)
    seed_everything(options.seed)
    folder = str(out / "expansion") if expanded else None
    data = VocabDataModule(
        base=options.base,
        expansion_dir=folder,
        extender=ContinuedBPE(num_new_tokens=options.num_new_tokens) if expanded else None,
        train=[source(text) for text in options.train],
        extend_on=[source(text) for text in options.extend_on or options.train[:1]]
        if expanded
        else None,
        val={
            "new_domain": source(options.new, options.max_documents),
            "old_domain": source(options.old, options.max_documents),
        },
        block_size=options.block_size,
        batch_size=options.batch_size,
        cache_dir=str(out / "cache"),
        seed=options.seed,
    )
    schedule = partial(WarmupCosine, total_steps=10**9, warmup_steps=20)
    if expanded:
        later = ("old_rows", "backbone_decay", "backbone_no_decay")
        schedule = partial(schedule, starts=dict.fromkeys(later, options.unfreeze_step))
    module = VocabExpansionModule(
        base=options.base,
        expansion_dir=folder,
        optimizer=partial(torch.optim.AdamW, betas=(0.9, 0.95)),  # type: ignore[arg-type]  # a callable of the groups
        lr_scheduler=schedule,  # type: ignore[arg-type]  # a callable of the optimizer
        lr_new_rows=options.lr_new_rows,
        lr_old_rows=options.lr,
        lr_backbone=options.lr,
    )
    curve = Curve(name)
    callbacks: list[Callback] = [CpuBudget(curve, options.cpu_seconds, options.points)]
    report = ExpansionReport(str(out / "report.json")) if expanded else None
    if report is not None:
        callbacks += [FreezeBackbone(), UnfreezeAt(step=options.unfreeze_step), report]
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=-1,
        limit_val_batches=0,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )
    trainer.fit(module, datamodule=data)
    return curve, report


def crossing(better: Curve, worse: Curve) -> float | None:
    """First CPU second from which `better` stays below `worse` on the new domain, or None."""
    last = None
    for seconds, value in zip(better.cpu_seconds, better.new_domain, strict=True):
        if value >= at(worse, seconds):
            last = None
        elif last is None:
            last = seconds
    return last


def at(curve: Curve, seconds: float) -> float:
    """The curve's new-domain value at a time, by linear interpolation."""
    points = list(zip(curve.cpu_seconds, curve.new_domain, strict=True))
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= seconds <= x1:
            return y0 + (y1 - y0) * (seconds - x0) / (x1 - x0)
    return points[-1][1]


def show(curves: list[Curve], out: Path, title: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    table = Table(title=title)
    for column in ("arm", "CPU s", "steps", "new domain, bits/byte", "old domain, bits/byte"):
        table.add_column(column, justify="right")
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4))
    for curve in curves:
        for row in zip(
            curve.cpu_seconds, curve.steps, curve.new_domain, curve.old_domain, strict=True
        ):
            table.add_row(
                curve.name, f"{row[0]:.0f}", str(row[1]), f"{row[2]:.4f}", f"{row[3]:.4f}"
            )
        axes[0].plot(curve.cpu_seconds, curve.new_domain, marker="o", label=curve.name)
        axes[1].plot(curve.cpu_seconds, curve.old_domain, marker="o", label=curve.name)
    for axis, domain in zip(axes, ("new domain", "old domain"), strict=True):
        axis.set(title=domain, xlabel="CPU seconds of training", ylabel="bits per byte")
        axis.legend()
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(out / "curves.png", dpi=110)
    Console(width=110).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="demo")
    parser.add_argument("--train", nargs="+", default=["demo:code"], help="PATH or PATH@SPLIT")
    parser.add_argument("--extend-on", nargs="+", help="text to grow on; the first of --train")
    parser.add_argument("--new", default="demo:code@validation", help="new domain, held out")
    parser.add_argument("--old", default="demo:english@validation", help="base domain, held out")
    parser.add_argument("--max-documents", type=int, default=None, help="of each held-out text")
    parser.add_argument("--num-new-tokens", type=int, default=1000)
    parser.add_argument("--cpu-seconds", type=float, default=240.0, help="of each arm")
    parser.add_argument("--points", type=int, default=10)
    parser.add_argument("--unfreeze-step", type=int, default=40)
    parser.add_argument("--lr", type=float, default=5e-4, help="old rows and backbone, both arms")
    parser.add_argument("--lr-new-rows", type=float, default=3e-3)
    parser.add_argument("--block-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="1 makes CPU seconds comparable")
    parser.add_argument("--out", default="runs/expansion_against_none")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    expanded, report = run(options, expanded=True)
    plain, _ = run(options, expanded=False)
    title = f"{options.base}: {options.num_new_tokens} new tokens against none"
    show([expanded, plain], out, title)
    start = crossing(expanded, plain)
    where = "never" if start is None else f"from {start:.0f} CPU seconds on"
    print(f"expanded is better on the new domain: {where}")
    assert report is not None
    result = {
        "options": vars(options),
        "curves": [asdict(curve) for curve in (expanded, plain)],
        "better_from_cpu_seconds": start,
        "report": [asdict(row) for row in report.rows],
    }
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
