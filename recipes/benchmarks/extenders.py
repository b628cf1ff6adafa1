"""Growing tokenizers on real text: fewer tokens, at what cost.

    python recipes/benchmarks/extenders.py --tokenizers path/to/qwen2.5 path/to/t5-small \
        --texts th.jsonl vi.jsonl --num-new-tokens 1000 10000

BPE tokenizers grow by `ContinuedBPE`, Unigram ones by `ContinuedUnigram`. Each run has a process of
its own, so that its peak memory is its own. Seconds are compared with one bare ``encode_batch`` of
the same text in the same process; medians over ``--repeats``. Where other work shares the cores,
the ratio of CPU seconds is the steadier one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from lightning_vocab.vocabulary import ContinuedBPE, ContinuedUnigram, Extender, load_tokenizer
from lightning_vocab.vocabulary.fingerprint import backend
from lightning_vocab.vocabulary.guarantees import dead_tokens

# `ru_maxrss` is in kibibytes on Linux and in bytes on macOS.
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Job:
    """One tokenizer to be grown, and by what."""

    tokenizer: str
    texts: tuple[str, ...]
    num_new_tokens: int
    min_frequency: int
    repeats: int


@dataclass(frozen=True)
class Figures:
    """What one tokenizer gave."""

    tokenizer: str
    num_new_tokens: int
    bytes_of: tuple[int, ...]
    tokens_before: tuple[int, ...]
    tokens_after: tuple[int, ...]
    num_dead: int
    seconds: float
    encode_seconds: float
    cpu_ratio: float
    rss_before_mib: float
    rss_peak_mib: float


def read_documents(path: str) -> list[str]:
    """The ``text`` fields of a ``.jsonl`` file, or the lines of any other file."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines] if path.endswith(".jsonl") else lines


def count_tokens(tokenizer: Tokenizer, documents: list[str]) -> int:
    """Tokens of all documents, without special ones."""
    return sum(
        len(encoding)
        for start in range(0, len(documents), 500)
        for encoding in tokenizer.encode_batch_fast(
            documents[start : start + 500], add_special_tokens=False
        )
    )


def peak_rss_mib() -> float:
    """Peak resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT / 2**20


def measure(job: Job) -> Figures:
    """Grow one tokenizer; the growing comes first, so that the peak is its own."""
    files = [read_documents(path) for path in job.texts]
    everything = [document for documents in files for document in documents]
    extender = extender_of(job)
    rss_before = peak_rss_mib()
    seconds: list[float] = []
    encode_seconds: list[float] = []
    cpu_ratios: list[float] = []
    rss_peak = rss_before
    for _ in range(job.repeats):
        base = load_tokenizer(job.tokenizer)  # fresh, so that no cache is warm
        started, cpu_started = time.perf_counter(), time.process_time()
        grown = extender.extend(base, everything)
        seconds.append(time.perf_counter() - started)
        cpu_seconds = time.process_time() - cpu_started
        rss_peak = rss_peak if encode_seconds else peak_rss_mib()
        base = load_tokenizer(job.tokenizer)
        started, cpu_started = time.perf_counter(), time.process_time()
        backend(base).encode_batch(everything, add_special_tokens=False)
        encode_seconds.append(time.perf_counter() - started)
        cpu_ratios.append(cpu_seconds / (time.process_time() - cpu_started))
    after = backend(grown.tokenizer)
    new = {token.id: token.token for token in grown.expansion.tokens}
    return Figures(
        tokenizer=Path(job.tokenizer).name,
        num_new_tokens=job.num_new_tokens,
        bytes_of=tuple(sum(len(text.encode()) for text in documents) for documents in files),
        tokens_before=tuple(count_tokens(backend(base), documents) for documents in files),
        tokens_after=tuple(count_tokens(after, documents) for documents in files),
        num_dead=len(dead_tokens(after, new)),
        seconds=median(seconds),
        encode_seconds=median(encode_seconds),
        cpu_ratio=median(cpu_ratios),
        rss_before_mib=rss_before,
        rss_peak_mib=rss_peak,
    )


def extender_of(job: Job) -> Extender:
    """The extender for the tokenizer's kind."""
    kind = type(backend(load_tokenizer(job.tokenizer)).model).__name__
    settings = {"min_frequency": job.min_frequency, "progress": False}
    if kind == "Unigram":
        return ContinuedUnigram(job.num_new_tokens, **settings)
    return ContinuedBPE(job.num_new_tokens, **settings)


def table_of(results: list[Figures], texts: list[str]) -> Table:
    """One row a run."""
    table = Table(title="Growing tokenizers")
    table.add_column("tokenizer")
    table.add_column("new\ntokens", justify="right")
    for path in texts:
        table.add_column(f"tokens/byte\n{Path(path).stem}", justify="right")
    for name in (
        "dead",
        "seconds",
        "encode_batch\nseconds",
        "ratio",
        "CPU\nratio",
        "peak RSS\nMiB (start)",
    ):
        table.add_column(name, justify="right")
    for result in results:
        rates = [
            f"{before / size:.4f} -> {after / size:.4f}"
            for before, after, size in zip(
                result.tokens_before, result.tokens_after, result.bytes_of, strict=True
            )
        ]
        table.add_row(
            result.tokenizer,
            f"{result.num_new_tokens:,}",
            *rates,
            str(result.num_dead),
            f"{result.seconds:.1f}",
            f"{result.encode_seconds:.1f}",
            f"{result.seconds / result.encode_seconds:.2f}",
            f"{result.cpu_ratio:.2f}",
            f"{result.rss_peak_mib:,.0f} ({result.rss_before_mib:,.0f})",
        )
    return table


def main(args: list[str] | None = None) -> None:
    """Parse the arguments, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--tokenizers", nargs="+", required=True, help="Folders of base tokenizers."
    )
    parser.add_argument(
        "--texts", nargs="+", required=True, help="Files (.jsonl with `text`, .txt)."
    )
    parser.add_argument(
        "--num-new-tokens", type=int, nargs="+", default=[10_000], help="Tokens to add."
    )
    parser.add_argument("--min-frequency", type=int, default=2, help="Smallest count of a pair.")
    parser.add_argument("--repeats", type=int, default=1, help="Runs of which the median counts.")
    options = parser.parse_args(args)
    jobs = [
        Job(
            tokenizer,
            tuple(options.texts),
            num_new_tokens,
            options.min_frequency,
            options.repeats,
        )
        for tokenizer in options.tokenizers
        for num_new_tokens in options.num_new_tokens
    ]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        results = list(pool.map(measure, jobs))
    Console().print(table_of(results, options.texts))


if __name__ == "__main__":
    main()
