"""A model that was divided among ranks, put together again on one of them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from lightning_vocab.rows.split_rows import SplitRows

_Module = TypeVar("_Module", bound=nn.Module)
_PARTS = ("old", "new", "padding", "old_bias", "new_bias", "padding_bias")


@torch.no_grad()
def whole_model(model: _Module) -> _Module | None:
    """The model with whole parameters in the CPU's memory, on rank 0; None on the others.

    Every rank calls it, outside of a forward pass. One parameter at a time is whole on the other
    ranks. What is shared in the model (tied rows) is shared in the copy; the model is not touched.

    Args:
        model: A model of which `shard_model` has divided the parameters.
    """
    twin: _Module = _twin(model, {}, {})
    return twin if dist.get_rank() == 0 else None


def _twin(module: nn.Module, modules: dict[nn.Module, Any], tensors: dict[Tensor, Any]) -> Any:
    if module in modules:
        return modules[module]
    if isinstance(module, SplitRows):
        twin: Any = _whole_rows(module)
        modules[module] = twin
        return twin
    # The class that `fully_shard` found, with no children and none of its hooks.
    kind = next(each for each in type(module).__mro__ if not issubclass(each, FSDPModule))
    twin = modules[module] = kind.__new__(kind)
    twin.__dict__.update(module.__dict__)
    twin._forward_hooks, twin._forward_pre_hooks = OrderedDict(), OrderedDict()
    twin._parameters = {n: _whole(p, tensors) for n, p in module._parameters.items()}
    twin._buffers = {n: _whole(b, tensors) for n, b in module._buffers.items()}
    twin._modules = {
        name: None if child is None else _twin(child, modules, tensors)
        for name, child in module._modules.items()
    }
    return twin


def _whole_rows(rows: SplitRows) -> SplitRows:
    """Rows that know nothing of ranks."""
    known: dict[Tensor, Any] = {}
    parts = {name: _whole(getattr(rows, name), known) for name in _PARTS}
    new_bias = parts["new_bias"]
    return SplitRows(
        parts["old"],
        parts["new"].detach(),
        rows.new_ids.cpu(),
        parts["padding"],
        old_bias=parts["old_bias"],
        new_bias=None if new_bias is None else new_bias.detach(),
        padding_bias=parts["padding_bias"],
    )


def _whole(part: Tensor | None, known: dict[Tensor, Any]) -> Any:
    """The whole tensor on rank 0; elsewhere one of its shape that takes no memory."""
    if part is None:
        return None
    if part not in known:
        full = part.full_tensor() if isinstance(part, DTensor) else part
        full = full.detach().to("cpu" if dist.get_rank() == 0 else "meta")
        is_parameter = isinstance(part, nn.Parameter)
        known[part] = nn.Parameter(full, part.requires_grad) if is_parameter else full
    return known[part]
