"""The named parameter groups of a causal language model, all of them from the start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from lightning_vocab.rows.locate import find_split
from lightning_vocab.rows.ties import parameters_once


def parameter_groups(
    model: PreTrainedModel,
    learning_rates: Mapping[str, float],
    *,
    weight_decay_rows: float = 0.0,
    weight_decay_backbone: float = 0.1,
) -> list[dict[str, Any]]:
    """Groups ``new_rows``, ``old_rows``, ``backbone_decay`` and ``backbone_no_decay`` for torch.

    Every parameter is in exactly one group, frozen ones too: a parameter without a gradient takes
    no step and has no optimizer state, so nothing need ever be added when it is unfrozen. Embedding
    and head of a model that is not split are ``old_rows``. Groups without a parameter are left out.

    Args:
        model: The model, split or not.
        learning_rates: Rates of ``new_rows``, ``old_rows`` and ``backbone``.
        weight_decay_rows: Weight decay of the rows.
        weight_decay_backbone: Weight decay of the backbone's matrices; vectors (norms, biases) have
            none.
    """
    split = find_split(model)
    if split is None:
        new: list[nn.Parameter] = []
        matrices = (model.get_input_embeddings(), model.get_output_embeddings())
        old = list(parameters_once(*matrices))
    else:
        rows = [part.rows for part in split]
        new = _distinct(p for r in rows for p in (r.new, r.new_bias))
        old = _distinct(p for r in rows for p in (r.old, r.old_bias))
    known = {id(parameter) for parameter in (*new, *old)}
    backbone = [p for p in parameters_once(model) if id(p) not in known]
    wide = [p for p in backbone if p.ndim >= 2]
    narrow = [p for p in backbone if p.ndim < 2]
    table = (
        ("new_rows", new, learning_rates["new_rows"], weight_decay_rows),
        ("old_rows", old, learning_rates["old_rows"], weight_decay_rows),
        ("backbone_decay", wide, learning_rates["backbone"], weight_decay_backbone),
        ("backbone_no_decay", narrow, learning_rates["backbone"], 0.0),
    )
    return [
        {"name": name, "params": params, "lr": rate, "weight_decay": decay}
        for name, params, rate, decay in table
        if params
    ]


def _distinct(parameters: Iterable[nn.Parameter | None]) -> list[nn.Parameter]:
    """Each parameter once, by identity: tied rows come twice."""
    return list({id(p): p for p in parameters if p is not None}.values())
