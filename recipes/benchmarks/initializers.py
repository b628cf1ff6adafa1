"""Time and peak memory of every closed-form initializer against a plain loop over tokens.

    python recipes/benchmarks/initializers.py [--size quick|standard|large] [--only SubwordMean ...]

All methods make the rows of the same new tokens of an untied base of random rows. Times are CPU
seconds, medians of runs taken in turn with the plain form in one process; each peak is that of a
forked process, above what the inputs take (Linux only). The plain form is the formula written down
token by token; that of matching pursuit keeps an orthonormal basis for a batch of 512 tokens and
multiplies residuals with all atoms. Sizes: quick is a smoke test; standard is 10,000 new tokens
over 32,000 rows of width 896; large is 10,000 over 151,936 rows of width 4,096.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, PreTrainedTokenizerFast
from typing_extensions import override

from lightning_vocab.initializers import Initializer, Mean, Normal, RowContext, SubwordMean
from lightning_vocab.initializers.convex_hull import ConvexHull
from lightning_vocab.initializers.dictionary import DictionaryAlignment
from lightning_vocab.initializers.focus import FOCUS
from lightning_vocab.initializers.matching_pursuit import OrthogonalMatchingPursuit
from lightning_vocab.initializers.multivariate import Multivariate
from lightning_vocab.initializers.ofa import OFA
from lightning_vocab.initializers.scripts import script_of
from lightning_vocab.initializers.spaces.base import AuxiliarySpace, TokenVectors
from lightning_vocab.initializers.wechsel import WECHSEL
from lightning_vocab.vocabulary.expansion import NewToken, VocabularyExpansion

Plain = Callable[[RowContext, Tensor], Tensor]


class Size(NamedTuple):
    """How large the matrices are, and how many of the old tokens the donor shares."""

    num_new: int
    num_old: int
    dim: int
    shared: int
    k: int


SIZES = {
    "quick": Size(500, 4_000, 128, 1_000, 16),
    "standard": Size(10_000, 32_000, 896, 16_000, 64),
    "large": Size(10_000, 151_936, 4_096, 32_000, 64),
}


@dataclass(frozen=True)
class Method:
    """A method and, where there is one, its formula written down token by token."""

    make: Callable[[Path, Size], Initializer]
    plain: Callable[[Path, Size], Plain] | None = None


class RandomSpace(AuxiliarySpace):
    """Random vectors of width 300 for all tokens: the cost of a space is not measured here."""

    @override
    def vectors(self, context: RowContext) -> TokenVectors:
        generator = torch.Generator().manual_seed(1)
        new = torch.randn(context.num_new, 300, generator=generator)
        old = torch.randn(len(context.base_ids), 300, generator=generator)
        knows = torch.ones(len(old), dtype=torch.bool)
        return TokenVectors(new, torch.ones(len(new), dtype=torch.bool), old, knows)


def names(size: Size, shared: int) -> list[str]:
    """The first shared old words and the new ones."""
    return [f"w{i}" for i in range(shared)] + [f"n{i}" for i in range(size.num_new)]


def make_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    vocab = {word: place for place, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def make_context(size: Size) -> RowContext:
    generator = torch.Generator().manual_seed(0)
    pieces = torch.randint(size.num_old, (size.num_new, 4), generator=generator).tolist()
    old, rows_after = size.num_old, size.num_old + size.num_new
    tokens = tuple(
        NewToken(old + i, f"n{i}", f"n{i}", "text", tuple(pieces[i])) for i in range(size.num_new)
    )
    expansion = VocabularyExpansion(old, old, rows_after, tokens, "", "", {}, {})
    rows = [torch.randn(size.num_old, size.dim, generator=generator) for _ in range(2)]
    tokenizer = make_tokenizer(names(size, size.num_old))
    return RowContext(expansion, tokenizer, rows[0], rows[1], None, generator)


def write_files(folder: Path, size: Size) -> None:
    lines = [f"w{1 + i % (size.num_old - 1)}\tn{i}\n" for i in range(size.num_new)]
    (folder / "pairs.tsv").write_text("".join(lines))
    words = names(size, size.shared)
    make_tokenizer(words).save_pretrained(folder / "donor")
    config = LlamaConfig(vocab_size=len(words), hidden_size=size.dim, num_hidden_layers=1)
    config.update({"num_attention_heads": 1, "tie_word_embeddings": True})
    config.save_pretrained(folder / "donor")
    rows = torch.randn(len(words), size.dim, generator=torch.Generator().manual_seed(2))
    save_file({"model.embed_tokens.weight": rows}, folder / "donor" / "model.safetensors")


def plain_normal(context: RowContext, rows: Tensor) -> Tensor:
    std = rows.std()
    return torch.stack([torch.randn(rows.shape[1]) * std for _ in context.expansion.tokens])


def plain_mean(noise: float) -> Plain:
    def made(context: RowContext, rows: Tensor) -> Tensor:
        factor = noise * torch.linalg.cholesky(torch.cov(rows.T, correction=0))
        mean = rows.mean(dim=0)
        drawn = [mean + factor @ torch.randn(len(mean)) for _ in context.expansion.tokens]
        return torch.stack(drawn)

    return made


def plain_subword(context: RowContext, rows: Tensor) -> Tensor:
    if rows is not context.input_rows:
        made = []
        for token in context.expansion.tokens:
            weights = torch.tensor([len(text) for text in context.texts(token.pieces)]).float()
            made.append(weights @ rows[list(token.pieces)] / weights.sum())
        return torch.stack(made)
    scripts = [script_of(text) for text in context.texts(range(len(rows)))]
    norms: dict[str, list[float]] = {}
    for script, norm in zip(scripts, rows.norm(dim=1).tolist(), strict=True):
        norms.setdefault(script, []).append(norm)
    medians = {script: median(found) for script, found in norms.items()}
    made = []
    for token in context.expansion.tokens:
        mean = rows[list(token.pieces)].mean(dim=0)
        made.append(mean * medians[script_of(token.surface)] / mean.norm())
    return torch.stack(made)


def plain_hull(context: RowContext, rows: Tensor) -> Tensor:
    made = []
    for _ in context.expansion.tokens:
        weights = torch.distributions.Dirichlet(torch.ones(20)).sample()
        made.append(weights @ rows[torch.randperm(len(rows))[:20]])
    return torch.stack(made)


def plain_dictionary(folder: Path, _: Size) -> Plain:
    def made(context: RowContext, rows: Tensor) -> Tensor:
        lines = (folder / "pairs.tsv").read_text().splitlines()
        words = {new: base for base, new in (line.split("\t") for line in lines)}
        found = []
        for token in context.expansion.tokens:
            row = rows[context.tokenizer.encode(words[token.surface])].mean(dim=0)
            found.append(row + 0.1 * row.norm() / len(row) ** 0.5 * torch.randn(len(row)))
        return torch.stack(found)

    return made


def plain_pursuit(folder: Path, size: Size) -> Plain:
    """Greedy choice with Gram-Schmidt, 512 tokens at a time, for the two matrices apart."""
    rows = torch.randn(size.shared + size.num_new, size.dim)
    atoms, targets = rows[: size.shared], rows[size.shared :]

    def codes(batch: Tensor) -> tuple[Tensor, Tensor]:
        basis = torch.zeros(len(batch), size.k, size.dim)
        triangle = torch.zeros(len(batch), size.k, size.k)
        ids = torch.zeros(len(batch), size.k, dtype=torch.long)
        residual, norms = batch.clone(), atoms.norm(dim=1)
        for step in range(size.k):
            ids[:, step] = ((residual @ atoms.T) / norms).abs().argmax(dim=1)
            new = atoms[ids[:, step]]
            along = (basis[:, :step] @ new.unsqueeze(2)).squeeze(2)
            new = new - (along.unsqueeze(1) @ basis[:, :step]).squeeze(1)
            triangle[:, :step, step], triangle[:, step, step] = along, new.norm(dim=1)
            basis[:, step] = new / new.norm(dim=1, keepdim=True)
            inside = (residual * basis[:, step]).sum(dim=1, keepdim=True)
            residual = residual - inside * basis[:, step]
        dots = basis @ batch.unsqueeze(2)
        return ids, torch.linalg.solve_triangular(triangle, dots, upper=True)

    def made(_: RowContext, base: Tensor) -> Tensor:
        found = [codes(batch) for batch in torch.split(targets, 512)]
        return torch.cat([(base[ids].mT @ weights).squeeze(2) for ids, weights in found])

    return made


METHODS: dict[str, Method] = {
    "Normal": Method(lambda *_: Normal(), lambda *_: plain_normal),
    "Mean": Method(lambda *_: Mean(), lambda *_: plain_mean(0.3)),
    "Multivariate": Method(lambda *_: Multivariate(), lambda *_: plain_mean(1.0)),
    "ConvexHull": Method(lambda *_: ConvexHull(), lambda *_: plain_hull),
    "SubwordMean": Method(lambda *_: SubwordMean(), lambda *_: plain_subword),
    "DictionaryAlignment": Method(
        lambda folder, _: DictionaryAlignment(folder / "pairs.tsv"), plain_dictionary
    ),
    "OrthogonalMatchingPursuit": Method(
        lambda folder, size: OrthogonalMatchingPursuit(str(folder / "donor"), size.k),
        plain_pursuit,
    ),
    "FOCUS": Method(lambda *_: FOCUS(RandomSpace())),
    "WECHSEL": Method(lambda *_: WECHSEL(RandomSpace())),
    "OFA": Method(lambda *_: OFA(RandomSpace())),
}
"""Add a method by its name; without a plain form it has no ratio."""


def highest_megabytes() -> float:
    """High-water mark of this process's resident set in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM"))


def peak_megabytes(work: Callable[[], object]) -> float:
    """Peak of one run above what there is, in a fork, so that no run's memory serves the next."""
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=send_peak, args=(work, sender))
    process.start()
    found: float = receiver.recv()
    process.join()
    return found


def send_peak(work: Callable[[], object], sender: Connection) -> None:
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark to what is resident
    start = highest_megabytes()
    work()
    sender.send(highest_megabytes() - start)


def seconds(works: list[Callable[[], object]], repeats: int) -> list[float]:
    """Median CPU seconds of each work, taken in turn; the first round warms up."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(repeats + 1):
        for times, work in zip(taken, works, strict=True):
            start = time.process_time()
            work()
            times.append(time.process_time() - start)
    return [median(times[1:]) for times in taken]


def works_of(
    method: Method, context: RowContext, folder: Path, size: Size
) -> list[Callable[[], object]]:
    initializer = method.make(folder, size)
    works: list[Callable[[], object]] = [lambda: initializer.rows(context)]
    if method.plain is not None:
        plain, matrices = method.plain(folder, size), (context.input_rows, context.output_rows)
        works.append(lambda: [plain(context, rows) for rows in matrices if rows is not None])
    return works


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="quick", choices=SIZES)
    parser.add_argument("--only", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)  # a forked process cannot use the threads of its parent
    size = SIZES[args.size]
    context = make_context(size)
    _ = context.base_ids  # the same for all methods, and computed once in an expansion
    table = Table(
        "method", "CPU seconds", "plain", "times", "peak MiB", "plain MiB", title=f"{size}"
    )
    with tempfile.TemporaryDirectory() as name:
        write_files(Path(name), size)
        for each in args.only:
            works = works_of(METHODS[each], context, Path(name), size)
            peaks = [f"{peak_megabytes(work):.0f}" for work in works]
            times = seconds(works, args.repeats)
            cells = [*(f"{taken:.3f}" for taken in times), "-"][:2]
            ratio = f"{times[1] / times[0]:.1f}" if len(times) > 1 else "-"
            table.add_row(each, *cells, ratio, *[*peaks, "-"][:2])
    Console().print(table)


if __name__ == "__main__":
    main()
