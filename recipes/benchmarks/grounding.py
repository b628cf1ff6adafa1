"""Does grounding give new rows a structure that lasts? Several starts, the same fine-tuning.

    python recipes/benchmarks/grounding.py --pairs emoji.jsonl --base demo --train demo:english \
        --val english=demo:english@validation --steps 600 --finetune-steps 300

Each arm adds the same tokens, those of the pairs. `mean` and `subword` are first values alone;
`mean+grounding` and `subword+grounding` are followed by a fit on the pairs in which nothing but
the new rows trains. All arms then go through the same fine-tuning of everything, on text that is
made from the pairs: documents of --train in which every description that occurs is replaced by its
tokens, and one sentence for each pair, in other words than the templates of grounding. The
sentences of every tenth pair are held out: an arm can know those tokens from grounding alone.
Their bits per byte, and those of the --val texts with descriptions replaced likewise, compare
the arms; a grounded arm has taken --steps more steps, of new rows alone.

Measured at the first value, after grounding, and after fine-tuning, against the base's states and
counts of words: see `GroundingReport`. A table, a JSON file and figures go to --out.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from rich.console import Console
from rich.table import Table

from lightning_vocab.callbacks import FreezeBackbone
from lightning_vocab.callbacks.grounding_report import GroundingReport
from lightning_vocab.data import TextSource
from lightning_vocab.data.cache import RowCache
from lightning_vocab.data.sources import as_sources
from lightning_vocab.datamodule import VocabDataModule
from lightning_vocab.demo import resolve_base
from lightning_vocab.grounding import GroundingDataModule, Pair, read_pairs
from lightning_vocab.initializers import Initializer, Keep, Mean, SubwordMean
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.schedules import WarmupCosine
from lightning_vocab.vocabulary import AddTokens, load_tokenizer, save_expansion

STARTS: dict[str, Callable[[], Initializer]] = {"mean": Mean, "subword": SubwordMean}
ARMS = ("mean", "subword", "mean+grounding", "subword+grounding")
STAGES = ("first value", "grounded", "fine-tuned")
SENTENCES = (
    "Here is {tokens}, and everybody can see that it shows {description}.",
    "Somebody asked me for {description}, so I sent {tokens} to them.",
)
HELD_OUT = "held_out_pairs"
SHOWN = {
    "effective_rank_new_input": "effective rank",
    "stable_rank_new_input": "stable rank",
    "top1_share_new_input": "top-1 share",
    "mean_pairwise_cosine_new_input": "mean cosine",
    "norm_ratio_input": "norm ratio",
    "rsa_states_pearson_input": "RSA states r",
    "rsa_states_spearman_input": "RSA states rho",
    "rsa_words_pearson_input": "RSA words r",
    "rsa_words_spearman_input": "RSA words rho",
    "retrieval_top1_share": "retrieval top-1",
    "retrieval_mean_reciprocal_rank": "retrieval MRR",
}
DRAWN = (
    "effective_rank_new_input",
    "rsa_states_spearman_input",
    "rsa_words_spearman_input",
    "retrieval_mean_reciprocal_rank",
)


# --- text ------------------------------------------------------------------------------------


def source(text: str, max_documents: int | None) -> TextSource:
    """`PATH` or `PATH@SPLIT`, such as `stories.jsonl@train[:95%]`."""
    path, _, split = text.partition("@")
    return TextSource(path=path, split=split or None, max_documents=max_documents)


def replacing(pairs: Iterable[Pair]) -> Callable[[str], str]:
    """Writes the tokens of a pair wherever its description stands; the longest first."""
    texts: dict[str, str] = {}
    for pair in pairs:
        texts.setdefault(pair.description.lower(), pair.text)
    longest_first = sorted(texts, key=len, reverse=True)
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, longest_first))})\b", re.IGNORECASE)
    return lambda text: pattern.sub(lambda found: texts[found[0].lower()], text)


def sentences(pairs: Iterable[Pair]) -> list[str]:
    return [
        SENTENCES[number % len(SENTENCES)].format(tokens=pair.text, description=pair.description)
        for number, pair in enumerate(pairs)
    ]


def write_texts(options: argparse.Namespace, pairs: tuple[Pair, ...], out: Path) -> dict[str, str]:
    """The texts of all arms: one to train on and, by name, those to validate on."""
    cache, write = RowCache(out / "cache", 1), replacing(pairs)
    named = dict(text.split("=", 1) for text in options.val)
    files = {}
    for name, text in ({"train": options.train} | named).items():
        is_train = name == "train"
        limit = options.max_documents if is_train else options.max_val_documents
        (settled,) = as_sources(source(text, limit), "train" if is_train else "validation")
        files[name] = (out / f"{name}.jsonl", [write(each) for each in cache.read(settled)])
    files["train"][1].extend(sentences(pair for i, pair in enumerate(pairs) if i % 10))
    files[HELD_OUT] = (out / f"{HELD_OUT}.jsonl", sentences(pairs[::10]))
    for path, documents in files.values():
        lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents]
        path.write_text("".join(lines), encoding="utf-8")
    return {name: str(path) for name, (path, _) in files.items()}


# --- fits ------------------------------------------------------------------------------------


def fit(
    module: VocabExpansionModule, data: LightningDataModule, steps: int, callbacks: list[Any]
) -> None:
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
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


def make_module(
    options: argparse.Namespace, base: str, expansion: str, start: Initializer, **rates: float
) -> VocabExpansionModule:
    steps = options.steps if "lr_backbone" not in rates else options.finetune_steps
    schedule = partial(WarmupCosine, total_steps=steps, warmup_steps=min(20, steps // 10))
    return VocabExpansionModule(
        base=base,
        expansion_dir=expansion,
        initializer=start,
        lr_scheduler=schedule,
        **rates,  # type: ignore[arg-type]  # learning rates alone
    )


def ground(
    options: argparse.Namespace, arm: str, seed: int, expansion: str, out: Path
) -> GroundingReport:
    """Train the new rows on the pairs; the grounded model is in ``out / "grounded"``."""
    data = GroundingDataModule(
        options.pairs,
        base=options.base,
        expansion_dir=expansion,
        batch_size=options.batch_size,
        seed=seed,
    )
    start = STARTS[arm.split("+")[0]]()
    rates = {"lr_new_rows": options.lr_grounding}
    module = make_module(options, options.base, expansion, start, **rates)
    report = GroundingReport(figure=str(out / "grounding.png"))
    fit(module, data, options.steps, [FreezeBackbone(), report])
    module.export(str(out / "grounded"), overwrite=True)
    return report


def run(
    options: argparse.Namespace, arm: str, seed: int, texts: dict[str, str], root: Path
) -> dict[str, Any]:
    """Numbers at each stage, and bits per byte at the end."""
    out, expansion = root / f"{arm.replace('+', '_')}_{seed}", str(root / "expansion")
    seed_everything(seed)
    stages: dict[str, dict[str, float]] = {}
    base, start = options.base, STARTS[arm.split("+")[0]]()
    if "+" in arm:
        first = ground(options, arm, seed, expansion, out)
        stages = {"first value": first.before, "grounded": first.after}
        base, start, expansion = str(out / "grounded"), Keep(), str(out / "grounded")
    data = VocabDataModule(
        base=base,
        expansion_dir=expansion,
        train=texts["train"],
        val={name: path for name, path in texts.items() if name != "train"},
        block_size=options.block_size,
        batch_size=options.finetune_batch_size,
        cache_dir=str(root / "cache"),
        seed=seed,
    )
    rates = {"lr_new_rows": options.lr_finetune, "lr_old_rows": options.lr_finetune}
    module = make_module(options, base, expansion, start, **rates, lr_backbone=options.lr_finetune)
    report = GroundingReport(pairs=options.pairs, figure=str(out / "finetuning.png"))
    fit(module, data, options.finetune_steps, [report])
    stages.setdefault("first value", report.before)
    stages["fine-tuned"] = report.after
    loaders = zip(data.val_names, data.val_dataloader(), strict=True)
    bits = {name: float(module.bits_per_byte(loader).compute()) for name, loader in loaders}
    return {"arm": arm, "seed": seed, "stages": stages, "bits_per_byte": bits}


# --- what comes out --------------------------------------------------------------------------


def values(results: list[dict[str, Any]], arm: str, stage: str, name: str) -> list[float]:
    found = [
        result["stages"].get(stage, {}).get(name) for result in results if result["arm"] == arm
    ]
    return [value for value in found if value is not None]


def cell(found: list[float]) -> str:
    spread = f" ±{stdev(found):.3f}" if len(found) > 1 else ""
    return f"{mean(found):.3f}{spread}" if found else ""


def tables(results: list[dict[str, Any]], arms: list[str], title: str) -> list[Table]:
    structure = Table("measure", "stage", *arms, title=f"{title}: the new input rows")
    for name, label in SHOWN.items():
        for place, stage in enumerate(STAGES):
            cells = [cell(values(results, arm, stage, name)) for arm in arms]
            structure.add_row("" if place else label, stage, *cells, end_section=place == 2)
    bits = Table("validation text", *arms, title=f"{title}: bits per byte after fine-tuning")
    for name in results[0]["bits_per_byte"]:
        by_arm = [[r["bits_per_byte"][name] for r in results if r["arm"] == arm] for arm in arms]
        bits.add_row(name, *map(cell, by_arm))
    return [structure, bits]


def draw(results: list[dict[str, Any]], arms: list[str], path: Path, title: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(DRAWN), 4.0), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(DRAWN)), DRAWN, strict=True):
        for arm in arms:
            found = [values(results, arm, stage, name) for stage in STAGES]
            places = [place for place, some in enumerate(found) if some]
            axes.plot(places, [mean(found[place]) for place in places], marker="o", label=arm)
        axes.set_title(SHOWN[name])
        axes.set_xticks(range(len(STAGES)), STAGES)
        axes.margins(x=0.15)
        axes.axhline(0, color="grey", linewidth=0.8)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(arms))
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", required=True, help="tokens and descriptions, .jsonl or .tsv")
    parser.add_argument("--base", default="demo")
    parser.add_argument("--name", help="of the base, in the tables")
    parser.add_argument("--train", default="demo:english", help="PATH or PATH@SPLIT")
    parser.add_argument("--val", nargs="*", default=[], help="NAME=PATH or NAME=PATH@SPLIT")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[7])
    parser.add_argument("--steps", type=int, default=600, help="of grounding")
    parser.add_argument("--batch-size", type=int, default=64, help="rows of pairs")
    parser.add_argument("--lr-grounding", type=float, default=2e-2)
    parser.add_argument("--finetune-steps", type=int, default=300)
    parser.add_argument("--finetune-batch-size", type=int, default=16)
    parser.add_argument("--lr-finetune", type=float, default=1e-3)
    parser.add_argument("--block-size", type=int, default=128)
    parser.add_argument("--max-documents", type=int, default=None, help="of --train")
    parser.add_argument("--max-val-documents", type=int, default=100, help="of each --val")
    parser.add_argument("--out", default="runs/grounding_benchmark")
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    options.base = resolve_base(options.base)
    pairs = read_pairs(options.pairs)
    tokens = list(dict.fromkeys(token for pair in pairs for token in pair.tokens))
    grown = AddTokens(tokens).extend(load_tokenizer(options.base))
    save_expansion(grown, out / "expansion", overwrite=True)
    texts = write_texts(options, pairs, out)
    results = [
        run(options, arm, seed, texts, out) for seed in options.seeds for arm in options.arms
    ]
    title = f"{options.name or Path(options.base).name}, {len(tokens)} new tokens"
    for table in tables(results, options.arms, title):
        Console(width=120).print(table)
    draw(results, options.arms, out / "grounding.png", title)
    found = json.dumps({"options": vars(options), "results": results}, indent=2)
    (out / "result.json").write_text(found + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
