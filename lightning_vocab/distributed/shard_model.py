"""Divide an expanded model among the ranks of a mesh: its rows, its layers, and what is left."""

from __future__ import annotations

from collections.abc import Iterator

from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from transformers import PreTrainedModel

from lightning_vocab.distributed.sharded_rows import ShardedRows
from lightning_vocab.rows.locate import find_split
from lightning_vocab.rows.split_rows import SplitRows

_ROW_METHODS = ("lookup", "logits", "score")


def shard_model(model: PreTrainedModel, mesh: DeviceMesh) -> None:
    """Divide the model in place over a mesh with ``data_parallel`` and ``tensor_parallel``.

    The backbone is fully sharded over ``data_parallel``, each layer as a unit of its own. The rows
    are divided over ``tensor_parallel`` as `ShardedRows` where that dimension has more than one
    rank, else they are fully sharded over ``data_parallel``. Old and new rows of a matrix are one
    unit, and a tied matrix stays one object. Every rank must have built the same model.

    Args:
        model: An expanded model.
        mesh: The mesh of `lightning.pytorch.strategies.ModelParallelStrategy`.

    Raises:
        MisconfigurationException: If the model is not expanded, has weights of half precision or
            parameters outside its backbone and its rows, or has dropout while rows are divided.
    """
    split = find_split(model)
    if split is None:
        raise MisconfigurationException(
            f"ModelParallelStrategy expected split rows, got the ordinary embedding of "
            f"{type(model).__name__}: give expansion_dir, or use DDPStrategy."
        )
    _refuse_half_precision(model)
    _refuse_parameters_outside(model, [part.rows for part in split])
    data = mesh["data_parallel"]
    ignored: set[nn.Parameter] = set()
    if mesh["tensor_parallel"].size() > 1:
        _refuse_dropout(model)
        whole = dict.fromkeys(part.rows for part in split)
        divided = {rows: ShardedRows(rows, mesh) for rows in whole}
        for part in split:
            part.rows = divided[part.rows]
        ignored = {parameter for rows in divided.values() for parameter in rows.parameters()}
    units: list[nn.Module] = list(outermost_layers(model.base_model))
    if not ignored:
        units = [*dict.fromkeys(part.rows for part in split), *units]
    for unit in (*units, model.base_model):
        # Resharded after each forward pass, the root too: outside of one, a parameter is the
        # object that the optimizer and the callbacks know.
        fully_shard(unit, mesh=data, reshard_after_forward=True, ignored_params=ignored)
        if isinstance(unit, SplitRows):
            for name in _ROW_METHODS:
                register_fsdp_forward_method(unit, name)


def outermost_layers(backbone: nn.Module) -> Iterator[nn.Module]:
    """The layers of a backbone: the items of its lists of modules that lie in no other list.

    Args:
        backbone: A model without its head.

    Example:
        >>> layers = nn.ModuleList([nn.Linear(2, 2), nn.ReLU()])
        >>> list(outermost_layers(nn.ModuleDict({"layers": layers, "norm": nn.LayerNorm(2)})))
        [Linear(in_features=2, out_features=2, bias=True)]
    """
    for child in backbone.children():
        if isinstance(child, nn.ModuleList):
            yield from (layer for layer in child if any(True for _ in layer.parameters()))
        else:
            yield from outermost_layers(child)


def _refuse_half_precision(model: PreTrainedModel) -> None:
    halves = {str(p.dtype) for p in model.parameters() if p.dtype.itemsize < 4}
    if halves:
        raise MisconfigurationException(
            f"ModelParallelStrategy was tested with weights of float32, got {', '.join(halves)}. "
            "Set dtype to float32, and the Trainer's precision to bf16-mixed."
        )


def _refuse_parameters_outside(model: PreTrainedModel, rows: list[SplitRows]) -> None:
    inside = {id(p) for part in (model.base_model, *rows) for p in part.parameters()}
    outside = [name for name, p in model.named_parameters() if id(p) not in inside]
    if model.base_model is model or outside:
        what = ", ".join(outside[:3]) if outside else "no backbone of its own"
        raise MisconfigurationException(
            "ModelParallelStrategy expected every parameter in the backbone or among the rows, got "
            f"{type(model).__name__} with {what}. Use DDPStrategy."
        )


def _refuse_dropout(model: PreTrainedModel) -> None:
    """Ranks that divide the rows must compute the same hidden states, and masks are random."""
    modules = [part.p for part in model.modules() if isinstance(part, nn.Dropout)]
    options = [
        value
        for name, value in model.config.get_text_config().to_dict().items()
        if "drop" in name and isinstance(value, float)
    ]
    if any(rate > 0 for rate in (*modules, *options)):
        raise MisconfigurationException(
            f"Rows divided over tensor_parallel need the same hidden states on all ranks, got "
            f"{type(model).__name__} with dropout. Set its rates to 0 in the base's config.json, "
            "or tensor_parallel_size=1."
        )
