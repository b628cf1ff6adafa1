"""Seconds and memory of one optimizer step of stage 1, against the usual ways to train new rows.

    python recipes/benchmarks/step.py [--shape qwen|llama] [--dtype float32|bfloat16] [--device cpu]

A model of random weights whose new rows alone train: Qwen2.5's head (151,936 rows of width 896,
tied) or Llama's (32,000 of width 512, untied), two layers, 5,000 new rows. The ways: `ours`, split
rows and the streamed loss; `hook`, `resize_token_embeddings`, a hook that zeroes the gradient of
old rows, and AdamW over the whole matrix; `peft`, its `trainable_token_indices`, where peft is
installed; `torch`, split rows and torch's own `linear_cross_entropy`, where this torch has it.

Ways are timed in turn in one process, medians and ranges; the memory that a step adds is that of a
process of its own (CPU: the resident set's high-water mark above what the model takes, on Linux;
GPU: the allocator's). The head alone is compared with its floor, bare products of the same shapes:
``2NVd`` for the logits, ``2NVd`` for the gradient of the hidden states, ``6Nmd`` for the new rows.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from lightning_vocab.functional import RowBlock, linear_cross_entropy
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


def make_model(args: argparse.Namespace) -> LlamaForCausalLM:
    shape = SHAPES[args.shape]
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
    return model.to(args.device).requires_grad_(False)


def make_batch(args: argparse.Namespace) -> dict[str, Tensor]:
    """Ids of which a tenth are new, all of them targets."""
    generator = torch.Generator().manual_seed(1)
    size, old = (args.batch, args.time), SHAPES[args.shape].rows
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


def ours(args: argparse.Namespace) -> Step:
    model = make_model(args)
    new = split(model, args.new_rows)
    optimizer = torch.optim.AdamW(new, lr=1e-3, weight_decay=0.0)
    loss = NextTokenLoss(model, args.chunk_size)

    def step(batch: dict[str, Tensor]) -> None:
        loss.mean_nats(batch).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def torch_chunked(args: argparse.Namespace) -> Step:
    """Split rows, and torch's own chunked loss over one matrix of old and new rows."""
    model = make_model(args)
    new = split(model, args.new_rows)
    optimizer = torch.optim.AdamW(new, lr=1e-3, weight_decay=0.0)
    rows = model.get_output_embeddings().rows

    def step(batch: dict[str, Tensor]) -> None:
        output = model.base_model(input_ids=batch["input_ids"], use_cache=False)
        hidden = output.last_hidden_state[:, :-1].flatten(0, 1)
        weight = torch.cat([rows.old, rows.new])
        F.linear_cross_entropy(hidden, weight, batch["labels"][:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def hook(args: argparse.Namespace) -> Step:
    model = make_model(args)
    num_old = SHAPES[args.shape].rows
    model.resize_token_embeddings(num_old + args.new_rows, mean_resizing=False)
    parts = (model.get_input_embeddings().weight, model.get_output_embeddings().weight)
    trained = list(dict.fromkeys(parts))
    for weight in trained:
        weight.requires_grad_(True)
        weight.register_hook(lambda gradient: gradient.index_fill(0, old_ids, 0.0))
    old_ids = torch.arange(num_old, device=args.device)
    return plain_step(model, torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0))


def peft_tokens(args: argparse.Namespace) -> Step:
    from peft import LoraConfig, get_peft_model

    model = make_model(args)
    num_old = SHAPES[args.shape].rows
    model.resize_token_embeddings(num_old + args.new_rows, mean_resizing=False)
    ids = list(range(num_old, num_old + args.new_rows))
    names = (
        {"embed_tokens": ids} if SHAPES[args.shape].tied else {"embed_tokens": ids, "lm_head": ids}
    )
    # peft wants a matrix to adapt as well: one of rank 1, which stays frozen.
    config = LoraConfig(
        r=1, target_modules=["q_proj"], layers_to_transform=[0], trainable_token_indices=names
    )
    wrapped = get_peft_model(model, config)
    for name, parameter in wrapped.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and "lora_" not in name)
    trained = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
    return plain_step(wrapped, torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0))


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
}


def available() -> list[str]:
    lacking = {"peft": find_spec("peft") is None, "torch": not hasattr(F, "linear_cross_entropy")}
    return [way for way in WAYS if not lacking.get(way)]


def seconds(args: argparse.Namespace, ways: list[str]) -> dict[str, list[float]]:
    """Seconds of each step, ways in turn; the first of each warms up."""
    batch = make_batch(args)
    steps = {way: WAYS[way](args) for way in ways}
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for repeat in range(args.repeats + 1):
        for way in ways:
            elapsed = timed(lambda way=way: steps[way](batch), args.device)  # type: ignore[misc]
            if repeat:
                taken[way].append(elapsed)
    return taken


def timed(call: Callable[[], None], device: str) -> float:
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def head_seconds(args: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Seconds of our head alone, forward and backward, and of its floor, in turn."""
    shape, dtype = SHAPES[args.shape], getattr(torch, args.dtype)
    num = args.batch * args.time
    hidden = torch.randn(num, shape.dim, device=args.device, dtype=dtype).requires_grad_()
    scale = shape.dim**-0.5  # logits of a size that models have: products with denormals are slow
    old = torch.randn(shape.rows, shape.dim, device=args.device, dtype=dtype) * scale
    new = torch.randn(args.new_rows, shape.dim, device=args.device, dtype=dtype) * scale
    new.requires_grad_()
    targets = torch.randint(shape.rows + args.new_rows, (num,), device=args.device)
    taken: list[tuple[float, float]] = []

    def ours_alone() -> None:
        blocks = [RowBlock(old), RowBlock(new)]
        linear_cross_entropy(hidden, targets, blocks, chunk_size=args.chunk_size).backward()

    @torch.no_grad()
    def products() -> None:
        for states in torch.split(hidden.detach(), args.chunk_size):
            error = states @ old.T
            error @ old  # the same shapes as the gradient of the hidden states
            error = states @ new.detach().T
            error @ new.detach()
            error.T @ states

    for repeat in range(args.repeats + 1):
        pair = timed(ours_alone, args.device), timed(products, args.device)
        if repeat:
            taken.append(pair)
    head, floor = zip(*taken, strict=True)
    return list(head), list(floor)


def added_megabytes(args: argparse.Namespace, way: str) -> float:
    """Memory that a step adds to what the model takes, in MiB; a second step, so with AdamW."""
    step, batch = WAYS[way](args), make_batch(args)
    if args.device == "cuda":
        before = torch.cuda.memory_allocated() / 2**20
        torch.cuda.reset_peak_memory_stats()
    else:
        before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    step(batch)
    step(batch)
    on_gpu = args.device == "cuda"
    return (torch.cuda.max_memory_allocated() / 2**20 if on_gpu else status("VmHWM")) - before


def status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 2**10 for line in lines if line.startswith(name))


def in_process(way: str) -> float:
    """`added_megabytes` of a fresh process, whose high-water mark nothing else has raised."""
    command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", way]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="qwen")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--new-rows", type=int, default=5_000)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--time", type=int, default=256)
    parser.add_argument("--chunk-size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory-of", choices=WAYS, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse()
    if args.memory_of:
        print(added_megabytes(args, args.memory_of))
        return
    ways = available()
    taken = seconds(args, ways)
    memory = {way: in_process(way) for way in ways}
    table = Table(title=f"{args.shape}, {args.dtype}, {args.batch} x {args.time}, {args.device}")
    for title in ("way", "seconds", "range", "ours / it", "MiB added", "ours / it"):
        table.add_column(title, justify="left" if title == "way" else "right")
    for way in ways:
        own, (low, *_, high) = median(taken[way]), sorted(taken[way])
        ratios = median(taken["ours"]) / own, memory["ours"] / memory[way]
        figures = f"{own:.2f}", f"{low:.2f} to {high:.2f}", f"{ratios[0]:.2f}"
        figures += f"{memory[way]:,.0f}", f"{ratios[1]:.2f}"
        table.add_row(way, *figures)
    console = Console()
    console.print(table)
    head, floor = map(median, head_seconds(args))
    console.print(f"Head alone {head:.2f} s, its floor {floor:.2f} s: {head / floor:.2f}")
    if missing := [way for way in WAYS if way not in ways]:
        console.print(f"Not installed: {', '.join(missing)}.")


if __name__ == "__main__":
    main()
