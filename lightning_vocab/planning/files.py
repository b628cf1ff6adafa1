"""What `lightning-vocab plan` leaves behind: a folder, whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_vocab.commands.output import write_json
from lightning_vocab.data.sources import plain
from lightning_vocab.planning.advice import Advice, Rules
from lightning_vocab.planning.figure import can_draw, draw_plan
from lightning_vocab.planning.points import Plan, PlanPoint
from lightning_vocab.planning.texts import PlanTexts
from lightning_vocab.vocabulary.whole_files import whole_folder

_JSON = "plan.json"
_FIGURE = "plan.png"
_RECIPE = "recipe.yaml"


def check_folder(path: str | None, *, overwrite: bool) -> None:
    """Refuse a place for the folder before any work is done.

    Args:
        path: The folder to be written; None for none.
        overwrite: Whether an older plan may be replaced.

    Raises:
        FileExistsError: If something stands there that may not be replaced: an older plan without
            ``overwrite``, or anything else that is not an empty folder.
    """
    if path is None:
        return
    place = Path(path).expanduser()
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return
    names = {each.name for each in place.iterdir()} if place.is_dir() else set()
    if _JSON not in names or not names <= {_JSON, _FIGURE, _RECIPE}:
        raise FileExistsError(
            f"{path!r} exists and holds something else than a plan: it is never replaced. Choose "
            "another folder."
        )
    if not overwrite:
        raise FileExistsError(
            f"{path!r} holds a plan already: set --overwrite true to replace it, or choose another "
            "folder."
        )


def as_plain(
    base: str,
    texts: PlanTexts,
    plan: Plan,
    points: Sequence[PlanPoint],
    advice: Advice,
    rules: Rules,
) -> dict[str, Any]:
    """Everything that was measured and advised, as plain JSON values.

    Args:
        base: The base as the user named it.
        texts: The texts.
        plan: What was measured.
        points: The sizes of the table.
        advice: The recommendation.
        rules: What it goes by.
    """
    return {
        "base": base,
        "advice": asdict(advice),
        "rules": asdict(rules),
        "budget": asdict(plan.budget),
        "model": asdict(plan.model),
        "base_rows": plan.base_rows,
        "num_slots": plan.num_slots,
        "growth_text": _size(plan.growth.num_documents, plan.growth.num_bytes)
        | {"sources": plain(dict(texts.growth))},
        "held_out_text": {
            name: _size(curve.num_documents, curve.num_bytes)
            | {"source": plain(texts.held_out[name])}
            for name, curve in plan.held_out.items()
        },
        "table": [asdict(point) for point in points],
        "curve": [asdict(plan.point(size)) for size in plan.curve_sizes()],
    }


def write_folder(
    path: str, values: dict[str, Any], plan: Plan, advice: Advice, recipe: str | None
) -> list[str]:
    """Write the folder, in place of an older plan if there is one.

    Args:
        path: The folder, which `check_folder` has let pass.
        values: What `as_plain` gave.
        plan: What was measured.
        advice: The recommendation.
        recipe: The recipe, or None if there is nothing to do.

    Returns:
        Lines that say what was written, and what was not and why.
    """
    target = Path(path).expanduser().absolute()
    with whole_folder(target) as fresh:
        write_json(str(fresh / _JSON), values)
        if can_draw():
            draw_plan(plan, advice, fresh / _FIGURE)
        if recipe is not None:
            (fresh / _RECIPE).write_text(recipe, encoding="utf-8")
        names = sorted(each.name for each in fresh.iterdir())
    lines = [f"Written to {path}: {', '.join(names)}."]
    if not can_draw():
        lines.append("No plot: matplotlib is missing (pip install 'lightning-vocab[plots]').")
    if recipe is None:
        lines.append("No recipe: the advice is not to expand.")
    else:
        lines.append(f"To do it: lightning-vocab fit --config {path}/{_RECIPE}")
    return lines


def _size(num_documents: int, num_bytes: int) -> dict[str, Any]:
    return {"num_documents": num_documents, "num_bytes": num_bytes}
