"""Seconds and memory of one optimizer step, against the usual ways to train a grown model.

    python recipes/benchmarks/step.py [--shape qwen|llama] [--dtype float32|bfloat16] [--stage 1|2]

A model of random weights, Qwen2.5's head (151,936 rows of width 896, tied) or Llama's (32,000 of
width 512, untied), two layers, 5,000 new rows. In stage 1 new rows alone train. The ways: `ours`,
split rows and the streamed loss; `hook`, `resize_token_embeddings`, a hook that zeroes the gradient
of old rows, and AdamW over the whole matrix; `peft`, its `trainable_token_indices`, where peft is
installed; `torch`, split rows and torch's own chunked `linear_cross_entropy`, where this torch has
it; `logits`, split rows and torch's cross-entropy of all logits. In stage 2 everything trains;
`plain` is then `resize_token_embeddings` and AdamW. Steps over split rows take AdamW fused, as the
recipes do, the others as torch makes it; `--fused all` or `none` treats all alike.

Ways are timed in turn in one process, medians and ranges. The memory that a step adds is that of a
process of its own, in which a tiny model has trained before: the code that a first step loads is
none of it. CPU, on Linux: the resident set's high-water mark above what the model takes, with the
C library told to hand freed blocks back at once (`--keep-freed` leaves it alone: glibc then keeps
those below 32 MB, more of them for one way than for another). GPU: the allocator's.

The head alone is compared with its floor, bare products of the same shapes: ``2NVd`` for the
logits, ``2NVd`` for the gradient of the hidden states, ``6Nmd`` for the new rows.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from statistics import median
from typing import Any, NamedTuple

import head_floor
import memory_of_call
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from lightning_vocab.base import enable_checkpointing
from lightning_vocab.functional import linear_cross_entropy
from lightning_vocab.functional.linear_cross_entropy import CHUNK_SIZE
from lightning_vocab.functional.loss_kernels import loss_of_kernel
from lightning_vocab.loss import NextTokenLoss
from lightning_vocab.rows.locate import replace_module
from lightning_vocab.rows.split import SplitEmbedding, SplitHead, SplitRows

Step = Callable[[dict[str, Tensor]], None]


class Shape(NamedTuple):
    rows: int
    dim: int
    heads: int
    tied: bool


SHAPES = {"qwen": Shape(151_936, 896, 14, True), "llama": Shape(32_000, 512, 8, False)}
SIZES = {**SHAPES, "tiny": Shape(512, 64, 2, False)}


def make_model(args: argparse.Namespace) -> LlamaForCausalLM:
    shape = SIZES[args.shape]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape.rows,
        hidden_size=shape.dim,
        intermediate_size=4 * shape.dim,
        num_hidden_layers=args.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        tie_word_embeddings=shape.tied,
    )
    model = LlamaForCausalLM(config).to(getattr(torch, args.dtype))
    if args.checkpointing:
        enable_checkpointing(model)
    return model.to(args.device).requires_grad_(args.stage == 2)


def make_batch(args: argparse.Namespace) -> dict[str, Tensor]:
    """Ids of which a tenth are new, all of them targets."""
    generator = torch.Generator().manual_seed(1)
    size, old = (args.batch, args.time), SIZES[args.shape].rows
    ids = torch.randint(old, size, generator=generator)
    new = old + torch.randint(args.new_rows, size, generator=generator)
    ids = torch.where(torch.rand(size, generator=generator) < 0.1, new, ids).to(args.device)
    return {"input_ids": ids, "labels": ids.clone(), "attention_mask": torch.ones_like(ids)}


def split(model: LlamaForCausalLM, num_new: int) -> list[nn.Parameter]:
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    old = embedding.weight
    ids = torch.arange(len(old), len(old) + num_new, device=old.device)

    def rows(matrix: nn.Parameter) -> SplitRows:
        return SplitRows(matrix, matrix[:num_new].clone(), ids, matrix[:0].clone())

    inputs = rows(embedding.weight)
    outputs = inputs if head.weight is old else rows(head.weight)
    replace_module(model, embedding, SplitEmbedding(inputs))
    replace_module(model, head, SplitHead(outputs))
    return list(dict.fromkeys([inputs.new, outputs.new]))


def adamw(trained: Iterable[nn.Parameter], *, is_fused: bool) -> torch.optim.Optimizer:
    return torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0, fused=is_fused or None)


def over_split_rows(args: argparse.Namespace, kernel: Callable[..., Tensor] | None) -> Step:
    """A step over split rows whose loss is a kernel's, or that of all logits."""
    model = make_model(args)
    new = split(model, args.new_rows)
    trained = list(model.parameters()) if args.stage == 2 else new
    optimizer = adamw(trained, is_fused=args.fused != "none")
    head, loss = model.get_output_embeddings(), NextTokenLoss(model, args.chunk_size)

    def step(batch: dict[str, Tensor]) -> None:
        if kernel is linear_cross_entropy:
            loss.mean_nats(batch).backward()
        else:
            output = model.base_model(input_ids=batch["input_ids"], use_cache=False)
            hidden, targets = output.last_hidden_state[:, :-1], batch["labels"][:, 1:]
            if kernel is None:
                logits = head(hidden).float().flatten(0, 1)
                F.cross_entropy(logits, targets.flatten()).backward()
            else:
                kernel(hidden, targets, head.rows.blocks()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def ours(args: argparse.Namespace) -> Step:
    return over_split_rows(args, linear_cross_entropy)


def torch_chunked(args: argparse.Namespace) -> Step:
    return over_split_rows(args, loss_of_kernel("torch"))


def all_logits(args: argparse.Namespace) -> Step:
    return over_split_rows(args, None)


def plain(args: argparse.Namespace) -> Step:
    model = make_model(args)
    model.resize_token_embeddings(SIZES[args.shape].rows + args.new_rows, mean_resizing=False)
    return plain_step(model, adamw(model.parameters(), is_fused=args.fused == "all"))


def hook(args: argparse.Namespace) -> Step:
    model = make_model(args)
    num_old = SIZES[args.shape].rows
    model.resize_token_embeddings(num_old + args.new_rows, mean_resizing=False)
    parts = (model.get_input_embeddings().weight, model.get_output_embeddings().weight)
    trained = list(dict.fromkeys(parts))
    for weight in trained:
        weight.requires_grad_(True)
        weight.register_hook(lambda gradient: gradient.index_fill(0, old_ids, 0.0))
    old_ids = torch.arange(num_old, device=args.device)
    return plain_step(model, adamw(trained, is_fused=args.fused == "all"))


def peft_tokens(args: argparse.Namespace) -> Step:
    from peft import LoraConfig, get_peft_model

    model = make_model(args)
    num_old = SIZES[args.shape].rows
    model.resize_token_embeddings(num_old + args.new_rows, mean_resizing=False)
    ids = list(range(num_old, num_old + args.new_rows))
    names = (
        {"embed_tokens": ids} if SIZES[args.shape].tied else {"embed_tokens": ids, "lm_head": ids}
    )
    # peft wants a matrix to adapt as well: one of rank 1, which stays frozen.
    config = LoraConfig(
        r=1, target_modules=["q_proj"], layers_to_transform=[0], trainable_token_indices=names
    )
    wrapped = get_peft_model(model, config)
    for name, parameter in wrapped.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and "lora_" not in name)
    trained = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
    return plain_step(wrapped, adamw(trained, is_fused=args.fused == "all"))


def plain_step(model: Any, optimizer: torch.optim.Optimizer) -> Step:
    def step(batch: dict[str, Tensor]) -> None:
        model(**batch, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


WAYS: dict[str, Callable[[argparse.Namespace], Step]] = {
    "ours": ours,
    "hook": hook,
    "peft": peft_tokens,
    "torch": torch_chunked,
    "logits": all_logits,
    "plain": plain,
}
STAGES = {1: ("ours", "hook", "peft", "torch", "logits"), 2: ("ours", "plain", "torch", "logits")}


def available(stage: int) -> list[str]:
    has_chunks = hasattr(torch.nn, "LinearCrossEntropyOptions")
    lacking = {"peft": find_spec("peft") is None, "torch": not has_chunks}
    return [way for way in STAGES[stage] if not lacking.get(way)]


def seconds(args: argparse.Namespace, ways: list[str]) -> dict[str, list[float]]:
    """Seconds of each step, ways in turn; the first of each warms up."""
    batch = make_batch(args)
    steps = {way: WAYS[way](args) for way in ways}
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for repeat in range(args.repeats + 1):
        for way in ways:
            elapsed = head_floor.timed(lambda way=way: steps[way](batch), args.device)  # type: ignore[misc]
            if repeat:
                taken[way].append(elapsed)
    return taken


def load_libraries(args: argparse.Namespace, way: str) -> None:
    """A step of a tiny model: the code that the first step of a process loads is not the step's."""
    tiny = argparse.Namespace(**{**vars(args), "shape": "tiny", "new_rows": 64, "time": 16})
    WAYS[way](tiny)(make_batch(tiny))


def added_megabytes(args: argparse.Namespace, way: str) -> float:
    """Memory that a step adds to what the model takes, in MiB; a second step, so with AdamW."""
    load_libraries(args, way)
    step, batch = WAYS[way](args), make_batch(args)

    def two_steps() -> None:
        step(batch)
        step(batch)

    return memory_of_call.megabytes(two_steps, args.device)


def in_process(way: str, arguments: list[str], *, keeps_freed: bool = False) -> float:
    """`added_megabytes` of a fresh process, whose high-water mark nothing else has raised."""
    command = [sys.executable, __file__, *arguments, "--memory-of", way]
    given = os.environ if keeps_freed else {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    found = subprocess.run(command, check=True, capture_output=True, text=True, env=given)
    return float(found.stdout)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="qwen")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--stage", type=int, choices=STAGES, default=1)
    parser.add_argument("--ways", nargs="+", choices=WAYS, help="default: all that are installed")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--new-rows", type=int, default=5_000)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--time", type=int, default=256)
    parser.add_argument("--chunk-size", type=int, default=CHUNK_SIZE)
    parser.add_argument("--fused", choices=["ours", "all", "none"], default="ours", help="AdamW of")
    parser.add_argument("--checkpointing", action="store_true", help="of the layers, in all ways")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--keep-freed", action="store_true", help="memory as glibc keeps it")
    parser.add_argument("--memory-of", choices=WAYS, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse()
    if args.memory_of:
        print(added_megabytes(args, args.memory_of))
        return
    ways = args.ways or available(args.stage)
    taken = seconds(args, ways)
    memory = {way: in_process(way, sys.argv[1:], keeps_freed=args.keep_freed) for way in ways}
    what = f"{args.shape}, {args.dtype}, {args.batch} x {args.time}, {args.device}"
    table = Table(
        title=f"stage {args.stage}, {what}, chunks of {args.chunk_size}, AdamW fused: {args.fused}"
    )
    for title in ("way", "seconds", "range", "ours / it", "MiB added", "ours / it"):
        table.add_column(title, justify="left" if title == "way" else "right")
    for way in ways:
        own, low, high = median(taken[way]), min(taken[way]), max(taken[way])
        ratios = median(taken["ours"]) / own, memory["ours"] / memory[way]
        figures = f"{own:.2f}", f"{low:.2f} to {high:.2f}", f"{ratios[0]:.2f}"
        figures += f"{memory[way]:,.0f}", f"{ratios[1]:.2f}"
        table.add_row(way, *figures)
    console = Console()
    console.print(table)
    if args.stage == 1:
        shape = SIZES[args.shape]
        head, floor = map(median, head_floor.seconds(args, shape.rows, shape.dim))
        num = args.batch * args.time * shape.dim
        work = num * (4 * shape.rows + 6 * args.new_rows) / 1e9
        console.print(
            f"Head alone {head:.2f} s ({work / head:,.0f} GFLOP/s), bare products {floor:.2f} s "
            f"({work / floor:,.0f} GFLOP/s): {head / floor:.2f}"
        )
    if missing := [way for way in STAGES[args.stage] if way not in ways]:
        console.print(f"Not installed or not asked for: {', '.join(missing)}.")


if __name__ == "__main__":
    main()
