"""An expanded model on 2 and 4 ranks against the same model on each of them, whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from lightning_vocab.distributed import clip_by_global_norm, shard_model, whole_model
from lightning_vocab.functional.linear_cross_entropy import linear_cross_entropy
from lightning_vocab.loss import NextTokenLoss
from lightning_vocab.rows.locate import find_split
from lightning_vocab.rows.roles import PHASES, parameter_roles
from lightning_vocab.rows.split import SplitEmbedding, SplitHead, SplitRows, base_view
from tests.conftest import case, make_model
from tests.distributed.ranks import on_ranks

pytestmark = pytest.mark.ddp
BASE_ROWS = 41  # no number of ranks divides it
NUM_STEPS = 6
LARGEST = {torch.float64: 1e-12, torch.float32: 1e-5}
LR = 1e-2  # AdamW divides a gradient by its own size, and a rounding error of it with it
QUICK = [(1, 2, torch.float64, "untied")]
RUNS = [  # ranks of data_parallel, ranks of tensor_parallel, dtype, kind of model
    case(data, rows, dtype, kind, quick=(data, rows, dtype, kind) in QUICK)
    for dtype in LARGEST
    for data, rows in ((2, 1), (1, 2), (2, 2), (4, 1), (1, 4))
    for kind in ("tied", "untied")
    if dtype is torch.float64 or data * rows == 2 or data == rows
]
Errors = dict[str, float]


def make_rows(old: nn.Parameter, ids: list[int], num_padding: int, *, bias: bool) -> SplitRows:
    generator = torch.Generator().manual_seed(3)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.05

    biases = [drawn(n) if bias else None for n in (len(old), len(ids), num_padding)]
    return SplitRows(
        old,
        drawn(len(ids), old.shape[1]),
        torch.tensor(ids),
        drawn(num_padding, old.shape[1]),
        old_bias=None if biases[0] is None else nn.Parameter(biases[0]),
        new_bias=biases[1],
        padding_bias=biases[2],
    )


def expanded(kind: str, dtype: torch.dtype = torch.float64) -> Any:
    """Tied with one new row, or untied with slots in the middle, padding rows, bias and cap."""
    model: Any = make_model(BASE_ROWS, tied=kind == "tied")
    ids, num_padding = ([BASE_ROWS], 0) if kind == "tied" else ([3, 5, 20, 30, 41, 43], 3)
    head = rows = make_rows(model.get_input_embeddings().weight, ids, num_padding, bias=False)
    if kind == "untied":
        head = make_rows(model.lm_head.weight, ids, num_padding, bias=True)
        model.config.final_logit_softcapping = 0.5
    model.set_input_embeddings(SplitEmbedding(rows, padding_idx=7))
    model.lm_head = SplitHead(head)
    return model.to(dtype).train()


def batch_of(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(BASE_ROWS + 1, (2, 12), generator=generator)
    labels = ids.clone()
    labels[0, : 1 + seed % 7] = -100
    return {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}


def make_mesh(data: int, rows: int) -> DeviceMesh:
    dist.init_process_group("gloo")
    return init_device_mesh(
        "cpu", (data, rows), mesh_dim_names=("data_parallel", "tensor_parallel")
    )


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def apart(left: Tensor, right: Tensor) -> float:
    return float((whole(left.detach()) - whole(right.detach())).abs().max())


def train(kind: str, dtype: torch.dtype, mesh: DeviceMesh) -> Errors:
    """Six steps of two models, one of them divided; the largest difference in each thing."""
    alone, divided = expanded(kind, dtype), expanded(kind, dtype)
    shard_model(divided, mesh)
    losses = [NextTokenLoss(model, chunk_size=7) for model in (alone, divided)]
    optimizers = [torch.optim.AdamW(model.parameters(), lr=LR) for model in (alone, divided)]
    largest: Errors = {}

    def seen(what: str, error: float) -> None:
        largest[what] = max(error, largest.get(what, 0.0))

    data = mesh["data_parallel"]
    for step in range(NUM_STEPS):
        for model, loss in zip((alone, divided), losses, strict=True):
            enter(model, step)
            loss.is_streamed = step < NUM_STEPS - 1  # the last one through the model's own logits
        for part in range(2):  # accumulated
            seeds = [100 * step + 10 * part + rank for rank in range(data.size())]
            expected = torch.stack([losses[0].mean_nats(batch_of(seed)) for seed in seeds])
            expected.mean().backward()  # type: ignore[no-untyped-call]  # torch's own
            found = losses[1].mean_nats(batch_of(seeds[data.get_local_rank()]))
            found.backward()  # type: ignore[no-untyped-call]  # torch's own
            seen("loss", apart(expected[data.get_local_rank()], found))
        for (name, p), q in zip(alone.named_parameters(), divided.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None), (name, step)
            if p.grad is not None and q.grad is not None:
                seen("gradient", apart(p.grad, q.grad))
        norm = nn.utils.clip_grad_norm_(alone.parameters(), 0.1)
        seen("norm", apart(norm, clip_by_global_norm(divided.parameters(), 0.1)))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    for p, q in zip(alone.parameters(), divided.parameters(), strict=True):
        seen("parameter", apart(p, q))
    states = [{id(p) for p in optimizer.state} for optimizer in optimizers]
    assert len(states[0]) == len(states[1])
    for what, error in compare_forward(alone, divided).items():
        seen(what, error)
    return largest


def enter(model: Any, step: int) -> None:
    """Two steps in each phase: the backbone is frozen before its first forward pass."""
    trained = {id(p) for p in parameter_roles(model).in_phase(PHASES[step // 2])}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in trained)


@torch.no_grad()
def compare_forward(alone: Any, divided: Any) -> Errors:
    batch = batch_of(7)
    ids = batch["input_ids"]
    both = [NextTokenLoss(model, chunk_size=7).nats(batch) for model in (alone, divided)]
    found = {"nats": apart(*both), "logits": apart(alone(ids).logits, divided(ids).logits)}
    with base_view(alone), base_view(divided):
        few = ids.clamp(max=BASE_ROWS - 1)
        found["logits of the base"] = apart(alone(few).logits, divided(few).logits)
    put_together = whole_model(divided)
    if put_together is not None:
        split = find_split(put_together)
        assert split is not None
        assert (split[0].rows is split[1].rows) == (
            divided.lm_head.rows is divided.model.embed_tokens.rows
        )
        found["put together"] = apart(alone(ids).logits, put_together(ids).logits)
    return found


def train_on(data: int, rows: int, dtype: torch.dtype, kind: str) -> Errors:
    return train(kind, dtype, make_mesh(data, rows))


@pytest.mark.parametrize(("data", "rows", "dtype", "kind"), RUNS)
def test_divided_models_train_as_whole_ones_do(
    data: int, rows: int, dtype: torch.dtype, kind: str
) -> None:
    bound = LARGEST[dtype]
    for errors in on_ranks(data * rows, train_on, data, rows, dtype, kind):
        assert errors.pop("parameter") < bound * (1 if dtype is torch.float64 else 10)
        assert max(errors.values()) < bound, errors


def score_few_rows() -> Iterator[Tensor]:
    """Loss and gradients where one rank has no row at all."""
    mesh = make_mesh(1, 2)
    model = expanded("tied")
    tiny = make_rows(nn.Parameter(torch.ones(1, 32)), [1], 0, bias=True).double()
    model.set_input_embeddings(SplitEmbedding(tiny))
    model.lm_head = SplitHead(tiny)
    shard_model(model, mesh)
    hidden = torch.linspace(-1, 1, 96, dtype=torch.float64).view(3, 32).requires_grad_()
    loss = model.lm_head.rows.score(linear_cross_entropy, hidden, torch.tensor([0, 1, -100]))
    loss.backward()
    assert hidden.grad is not None
    rows = model.lm_head.rows
    return [loss.detach(), hidden.grad, *(whole(p.grad) for p in rows.parameters())]  # type: ignore[return-value]


def test_a_rank_may_have_no_row_at_all() -> None:
    tiny = make_rows(nn.Parameter(torch.ones(1, 32)), [1], 0, bias=True).double()
    hidden = torch.linspace(-1, 1, 96, dtype=torch.float64).view(3, 32).requires_grad_()
    loss = nn.functional.cross_entropy(tiny.logits(hidden), torch.tensor([0, 1, -100]))
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
    expected = [loss.detach(), hidden.grad, *(p.grad for p in tiny.parameters())]
    for found in on_ranks(2, score_few_rows):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def refused() -> list[str]:
    mesh = make_mesh(1, 2)
    found = []
    plain, dropping, beside = make_model(8), expanded("tied"), expanded("tied")
    half = expanded("tied", torch.bfloat16)
    dropping.config.attention_dropout = 0.1
    beside.adapter = nn.Linear(2, 2)
    for model in (plain, dropping, beside, half):
        with pytest.raises(MisconfigurationException) as error:
            shard_model(model, mesh)
        found.append(str(error.value))
    return found


def test_models_that_cannot_be_divided_are_refused_by_name() -> None:
    plain, dropping, beside, half = on_ranks(2, refused)[0]
    assert "give expansion_dir" in plain
    assert "LlamaForCausalLM with dropout" in dropping
    assert "got torch.bfloat16. Set dtype to float32" in half
    assert "LlamaForCausalLM with adapter.weight, adapter.bias" in beside


def bytes_held() -> tuple[int, int]:
    model = expanded("tied")
    shard_model(model, make_mesh(1, 2))
    old = model.lm_head.rows.old.to_local()
    return len(old), old.untyped_storage().nbytes()


@pytest.mark.slow
def test_a_rank_holds_its_own_rows_and_no_more() -> None:
    assert on_ranks(2, bytes_held) == [(21, 21 * 32 * 8), (20, 20 * 32 * 8)]
