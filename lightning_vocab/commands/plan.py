"""`lightning-vocab plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from lightning_vocab.commands.output import check_place, write_json
from lightning_vocab.demo import resolve_base
from lightning_vocab.planning.advice import (
    Advice,
    Rules,
    advise,
    advise_for_list,
    check_room,
)
from lightning_vocab.planning.files import as_plain, check_folder, write_folder
from lightning_vocab.planning.measure import check_bpe, measure, share_saved_by
from lightning_vocab.planning.model import known_size, make_budget
from lightning_vocab.planning.points import Plan
from lightning_vocab.planning.recipe import write_recipe
from lightning_vocab.planning.table import headline, report
from lightning_vocab.planning.texts import split_texts
from lightning_vocab.vocabulary.added import AddTokens
from lightning_vocab.vocabulary.backend_state import read_state
from lightning_vocab.vocabulary.folder import load_tokenizer
from lightning_vocab.vocabulary.slots.slots import slots_of


def plan(
    base: str,
    text: list[str] | None = None,
    out: str | None = None,
    max_new_tokens: int = 10_000,
    min_frequency: int = 2,
    scripts: list[str] | None = None,
    fixed_size: bool = False,
    tokens_file: str | None = None,
    training_tokens: float | None = None,
    floor: int = 100,
    min_gain: float = 0.10,
    min_gain_per_thousand: float = 0.005,
    hidden_size: int | None = None,
    tied: bool | None = None,
    num_backbone_parameters: int | None = None,
    batch_size: int = 8,
    block_size: int | None = None,
    json: str | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> None:
    """Say how many tokens to add, what they cost, and whether to expand at all.

    Continues the base's merges once, on the first nine tenths of each text, and counts what every
    number of new tokens makes of the last tenth: exactly, since merges are ordered. Weighs the
    tokens saved against memory and compute per byte, and recommends a size and a method with the
    reasons, or not to expand. Needs a BPE tokenizer; no weights are read. With --out it writes
    plan.json, plan.png and, unless the advice is not to expand, recipe.yaml for `lightning-vocab
    fit --config`.

    Args:
        base: `demo`, a Hugging Face folder or a hub id: a tokenizer, and the config.json of its
            model if costs are to be weighed.
        text: Texts like those to train on, in their proportions: path, name=path, or
            name=path::field each. A path is a .txt, .jsonl, .jsonl.gz or .parquet file, a folder of
            such files, demo:english, demo:code, or a data set on the hub.
        out: Folder for plan.json, plan.png and recipe.yaml.
        max_new_tokens: Where the curve ends, or earlier if the text gives fewer tokens.
        min_frequency: Smallest number of times that a pair must stand in the text to be merged.
        scripts: Unicode scripts, such as Thai, whose words are learned from.
        fixed_size: Whether no matrix may grow, as where serving cost is fixed: new tokens go into
            slots of the base (padded rows, then reserved tokens).
        tokens_file: Protocol tokens that are wanted anyway, one a line; they are added as they are,
            and the advice is how.
        training_tokens: Tokens of text that the grown model will be trained on; if not given, one
            pass over the text.
        floor: Occurrences in training that a new token needs. 100 is where the gain from more
            examples of a token was found to flatten (token distillation, 2025).
        min_gain: Share of the tokens of held-out text that new tokens must save for an expansion to
            pay. Published in-place growth slowed other text by up to 9 %, so less can be lost
            elsewhere.
        min_gain_per_thousand: Share that the last 1,000 new tokens must save; used where the
            model's size is unknown, else compute per byte decides.
        hidden_size: Width of the model's rows, where config.json does not say it.
        tied: Whether embedding and head are one matrix, where config.json does not say it.
        num_backbone_parameters: Parameters outside embedding and head that a token is multiplied
            with, where config.json does not say it; of a mixture of experts the active ones.
        batch_size: Rows of text in a batch, for the memory of logits and the recipe.
        block_size: Tokens of a row of text; 2,048, or the model's context if that is shorter.
        json: File for everything that was measured and advised.
        overwrite: Whether an older plan in `out` may be replaced.
        progress: Whether a progress bar is shown; if not given, where stderr is a terminal.
    """
    if not text:
        raise ValueError("Expected the text to plan for: --text name=path::field ...")
    if max_new_tokens < 1:
        raise ValueError(f"Expected --max_new_tokens of at least 1, got {max_new_tokens}.")
    check_place(json)
    check_folder(out, overwrite=overwrite)
    texts, listed = split_texts(text), _listed(tokens_file)
    rules = Rules(min_gain=min_gain, min_gain_per_thousand=min_gain_per_thousand)
    model = known_size(resolve_base(base), hidden_size, tied, num_backbone_parameters)
    budget = make_budget(model, training_tokens, floor, batch_size, block_size)
    tokenizer = load_tokenizer(resolve_base(base))
    state = read_state(tokenizer)
    check_bpe(state, base)
    if listed and fixed_size:
        check_room(len(listed), len(slots_of(state, model.num_rows)))
    with_list = AddTokens(listed).extend(tokenizer).tokenizer if listed else None
    settings: dict[str, Any] = {
        "num_new_tokens": max_new_tokens,
        "min_frequency": min_frequency,
        "scripts": scripts,
    }
    found = measure(tokenizer, texts, {**settings, "progress": progress}, model, budget)
    if with_list is not None:
        saved = share_saved_by(tokenizer, with_list, texts)
        advice = advise_for_list(found, len(listed), saved, fixed_size=fixed_size)
        settings = {"tokens": listed}
    else:
        advice = advise(found, rules, fixed_size=fixed_size)
    points = [found.point(size) for size in _sizes(found, advice)]
    console = Console()
    console.print(report(found, points, advice))
    values = as_plain(base, texts, found, points, advice, rules)
    if json is not None:
        write_json(json, values)
    if out is not None:
        recipe = None
        if advice.method != "none":
            recipe = write_recipe(
                found, advice, headline(advice), base, out, extender=settings, texts=texts
            )
        for line in write_folder(out, values, found, advice, recipe):
            console.print(line, markup=False, highlight=False)


def _listed(path: str | None) -> list[str]:
    """The tokens of a file, one a line; blank lines count for nothing."""
    if path is None:
        return []
    lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    listed = [line.strip() for line in lines if line.strip()]
    if not listed:
        raise ValueError(f"{path!r} lists no token: expected one a line.")
    return listed


def _sizes(found: Plan, advice: Advice) -> list[int]:
    is_learned = advice.method.startswith("continued_bpe")
    return found.shown_sizes(*([advice.num_new_tokens] if is_learned else []))
