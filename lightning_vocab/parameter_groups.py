"""The named parameter groups of a causal language model, all of them from the start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from lightning_vocab.rows.roles import parameter_roles
from lightning_vocab.rows.ties import parameters_once


def parameter_groups(
    model: PreTrainedModel,
    module: nn.Module,
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
        module: The module that holds it; parameters of it outside the model (a subclass's own) are
            in ``other``, with the rate and decay of the backbone.
        learning_rates: Rates of ``new_rows``, ``old_rows`` and ``backbone``.
        weight_decay_rows: Weight decay of the rows.
        weight_decay_backbone: Weight decay of the backbone's matrices; vectors (norms, biases) have
            none.
    """
    roles = parameter_roles(model)
    backbone = roles.backbone
    wide = [p for p in backbone if p.ndim >= 2]
    narrow = [p for p in backbone if p.ndim < 2]
    known = {id(p) for p in roles.everything()}
    other = [p for p in parameters_once(module) if id(p) not in known]
    table = (
        ("new_rows", roles.new_rows, learning_rates["new_rows"], weight_decay_rows),
        (
            "old_rows",
            roles.old_rows + roles.embedding,
            learning_rates["old_rows"],
            weight_decay_rows,
        ),
        ("backbone_decay", wide, learning_rates["backbone"], weight_decay_backbone),
        ("backbone_no_decay", narrow, learning_rates["backbone"], 0.0),
        ("other", other, learning_rates["backbone"], weight_decay_backbone),
    )
    return [
        {"name": name, "params": list(params), "lr": rate, "weight_decay": decay}
        for name, params, rate, decay in table
        if params
    ]
