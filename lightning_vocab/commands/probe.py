"""`lightning-vocab probe`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from lightning_vocab.commands.output import check_place, write_json
from lightning_vocab.probing.candidates import DEFAULTS, Candidate, read_candidates
from lightning_vocab.probing.outcome import Outcome
from lightning_vocab.probing.recipe import Recipe
from lightning_vocab.probing.recipe_text import with_initializer
from lightning_vocab.probing.trials import Trial, check_fit, run_trial


def probe(
    config: str | None = None,
    initializers: list[str] | None = None,
    steps: int = 50,
    seeds: int = 3,
    on: str | None = None,
    override: list[str] | None = None,
    out: str | None = None,
    overwrite: bool = False,
    json: str | None = None,
) -> None:
    """Train each initializer for a few steps on a recipe's model and text, and rank them.

    What the first step scores does not rank initializers; some 50 steps do. Each trains with the
    recipe's optimizer, schedule and phases, on the same text in the same order. Ranked by bits per
    byte of the validation documents, with a 95 % interval of the difference to the best: where it
    holds 0, the difference is noise. With --out the recipe is written anew with the best one;
    comments and everything else in it stay as they are.

    Of the recipe's callbacks only those that decide what trains are kept; no logger, checkpoint,
    export or report is made. Written are only the expansion folder and the tokenised text that
    `fit` would make too. Works in one process.

    Args:
        config: A recipe of `lightning-vocab fit`.
        initializers: Names of classes, or JSON objects with class_path and init_args; if not given,
            SubwordMean, Mean, ConvexHull, Multivariate, FOCUS with the states of the base, and the
            recipe's own.
        steps: Optimizer steps of each training.
        seeds: Trainings of each initializer; each draws other rows and another order of the text.
        on: Name of the validation source that ranks; the first if not given. All are shown.
        override: Changes of the recipe for the probe, such as data.batch_size=4. They are not
            written into the new recipe.
        out: File of the new recipe.
        overwrite: Whether an older file at `out` may be replaced.
        json: File for all figures.
    """
    if config is None:
        raise ValueError("Expected a recipe of fit: --config FILE.")
    if steps < 1 or seeds < 1:
        raise ValueError(f"Expected --steps and --seeds of at least 1, got {steps} and {seeds}.")
    check_place(json)
    _check_out(out, overwrite=overwrite)
    recipe = Recipe(config, override or (), steps)
    candidates = read_candidates(initializers or DEFAULTS, recipe.initializer)
    on = check_fit(recipe, candidates[0], on)
    text = Path(config).expanduser().read_bytes().decode()
    if out is not None:
        for each in candidates:  # a recipe that cannot be changed is refused before the work
            with_initializer(text, each.value, [])
    console = Console()
    _print(console, _left_out(recipe))
    trials = _run(recipe, candidates, seeds, on, console)
    outcome = Outcome.of(candidates, trials, on, steps)
    console.print(outcome.table())
    _print(console, outcome.lines())
    if json is not None:
        write_json(json, {"recipe": config, "override": override or [], **outcome.as_plain()})
    if out is not None:
        remarks = _remarks(outcome, seeds, override or [])
        changed = with_initializer(text, outcome.best.value, remarks)
        Path(out).expanduser().write_bytes(changed.encode())
        _print(console, [f"Wrote {out}: lightning-vocab fit --config {out}"])


def _run(
    recipe: Recipe, candidates: Sequence[Candidate], seeds: int, on: str, console: Console
) -> list[Trial]:
    """All trials, seed after seed: what is wrong with an initializer shows in the first round."""
    trials = []
    for repeat in range(seeds):
        for candidate in candidates:
            trial = run_trial(recipe, candidate, repeat)
            trials.append(trial)
            told = f"{trial.start[on].bits_per_byte:.4f} -> {trial.end[on].bits_per_byte:.4f}"
            _print(console, [f"{candidate.label}, seed {repeat + 1} of {seeds}: {told} on {on}"])
    return trials


def _check_out(out: str | None, *, overwrite: bool) -> None:
    check_place(out)
    if out is not None and Path(out).expanduser().exists() and not overwrite:
        raise FileExistsError(f"{out!r} exists: choose another --out, or say --overwrite=true.")


def _left_out(recipe: Recipe) -> list[str]:
    """What of the recipe has no part in the probe."""
    lines = []
    if recipe.left_out:
        names = ", ".join(each.rpartition(".")[2] for each in recipe.left_out)
        lines.append(f"Not called in a probe: {names}.")
    if recipe.ckpt_path is not None:
        lines.append(f"A probe starts from the base, not from {recipe.ckpt_path}.")
    return lines


def _remarks(outcome: Outcome, seeds: int, override: Sequence[str]) -> list[str]:
    said = f"Initializer chosen by `lightning-vocab probe` with --seeds {seeds}. "
    said += outcome.verdict()
    if override:
        said += f" Probed with {' '.join(override)}."
    return textwrap.wrap(said, width=98, break_long_words=False, break_on_hyphens=False)


def _print(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False)
