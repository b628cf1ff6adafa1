"""The recipe that `lightning-vocab plan` writes: what `lightning-vocab fit` needs to do it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import yaml

from lightning_vocab.data.sources import TextSource
from lightning_vocab.planning.advice import Advice
from lightning_vocab.planning.points import Plan
from lightning_vocab.planning.texts import PlanTexts

_HEADER = """\
# {headline}
#   lightning-vocab fit --config {recipe}
# Written by `lightning-vocab plan`. Grows the vocabulary on the text that was planned with, and
# validates on the text that was held out. Learning rates are starting points, not results; add text
# of the base's own domain to data.train and data.val: it keeps what the base knows.
"""


def write_recipe(
    plan: Plan,
    advice: Advice,
    headline: str,
    base: str,
    folder: str,
    *,
    extender: Mapping[str, Any],
    texts: PlanTexts,
) -> str:
    """A recipe as YAML.

    Args:
        plan: What was measured.
        advice: The recommendation, which expands.
        headline: The recommendation in a line.
        base: The base as the user named it.
        folder: Where the plan is written. What the run writes goes beside it, so that a folder of
            a plan holds nothing else.
        extender: Settings of `ContinuedBPE`, or of what adds a list of tokens.
        texts: Text to grow and train on, and to validate on.
    """
    run = f"{folder.rstrip('/')}_run"
    steps = _num_steps(plan, advice)
    config = {
        "seed_everything": 7,
        "trainer": _trainer(run, steps),
        "model": _model(base, run, steps, rate_of_new_rows(plan.model.hidden_size)),
        "data": {
            "extender": _extender(advice, extender),
            "train": [_plain(source) for source in texts.growth.values()],
            "val": {name: _plain(source) for name, source in texts.held_out.items()},
            "block_size": plan.budget.block_size,
            "batch_size": plan.budget.batch_size,
            "cache_dir": f"{run}/cache",
        },
    }
    header = _HEADER.format(headline=headline, recipe=f"{folder}/recipe.yaml")
    return header + str(yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100))


def _trainer(run: str, steps: int) -> dict[str, Any]:
    return {
        "accelerator": "auto",
        "devices": 1,
        "precision": "bf16-true",
        "max_steps": steps,
        "max_epochs": -1,
        "val_check_interval": max(1, steps // 2),
        "check_val_every_n_epoch": None,
        "gradient_clip_val": 1.0,
        "default_root_dir": run,
        "callbacks": [
            _object("callbacks.FreezeBackbone"),
            _object("callbacks.UnfreezeAt", step=_unfreeze_step(steps), phase="full"),
            _object("callbacks.ExpansionReport", path=f"{run}/report.json"),
            _object("callbacks.ExportHuggingFace", path=f"{run}/export"),
        ],
    }


def rate_of_new_rows(width: int | None) -> float:
    """Learning rate of stage 1, to one digit: 1e-3 for a width of 896 to 1e-4 for 4,096.

    AdamW moves each number of a row by about the rate, and a logit adds up all of them: the wider
    the rows, the smaller the step that moves a logit by as much. A rule of thumb.

    Args:
        width: Width of the rows; None if it is not known, which gets what narrow rows get.

    Example:
        >>> [rate_of_new_rows(width) for width in (128, 896, 2048, 4096, 8192)]
        [0.001, 0.001, 0.0003, 0.0001, 0.0001]
    """
    if width is None:
        return 1e-3
    per_octave = math.log(10) / math.log(4096 / 896)
    rate = min(1e-3, max(1e-4, 1e-3 * (896 / width) ** per_octave))
    return float(f"{rate:.0e}")


def _model(base: str, run: str, steps: int, rate: float) -> dict[str, Any]:
    later = ("old_rows", "backbone_decay", "backbone_no_decay")
    return {
        "base": base,
        "expansion_dir": f"{run}/expansion",
        "dtype": "bfloat16",
        "initializer": _object("initializers.SubwordMean"),
        "lr_new_rows": rate,
        "lr_old_rows": 1.0e-4,
        "lr_backbone": 1.0e-5,
        "weight_decay_rows": 0.0,
        "weight_decay_backbone": 0.1,
        "optimizer": {
            "class_path": "torch.optim.AdamW",
            "init_args": {"lr": rate, "betas": [0.9, 0.95], "weight_decay": 0.0, "fused": True},
        },
        "lr_scheduler": _object(
            "schedules.WarmupCosine",
            total_steps=steps,
            warmup_steps=max(1, steps // 40),
            starts={name: _unfreeze_step(steps) for name in later},
        ),
    }


def _extender(advice: Advice, settings: Mapping[str, Any]) -> dict[str, Any]:
    if advice.method in ("add_tokens", "reuse_slots"):
        is_added = advice.method == "add_tokens"
        name = "AddTokens" if is_added else "ReuseSlots"
        return _object(f"vocabulary.{name}", **settings)
    slots = {"into_slots": True} if advice.method == "continued_bpe_into_slots" else {}
    chosen = {**settings, "num_new_tokens": advice.num_new_tokens, **slots}
    return _object("vocabulary.ContinuedBPE", **chosen)


def _num_steps(plan: Plan, advice: Advice) -> int:
    """Optimizer steps of the training budget: by default one pass over the growth text."""
    size = min(advice.num_new_tokens, plan.largest)
    tokens = plan.budget.training_tokens or float(plan.growth.num_tokens[size])
    return max(4, math.ceil(tokens / (plan.budget.batch_size * plan.budget.block_size)))


def _unfreeze_step(steps: int) -> int:
    return steps // 4


def _object(name: str, **arguments: Any) -> dict[str, Any]:
    init = {"init_args": arguments} if arguments else {}
    return {"class_path": f"lightning_vocab.{name}", **init}


def _plain(source: TextSource) -> dict[str, Any]:
    given = {"path": source.path, "text_field": source.text_field, "split": source.split}
    return {key: value for key, value in given.items() if key != "text_field" or value != "text"}
