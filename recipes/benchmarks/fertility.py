"""What measuring fertility costs beyond cutting the text: paired, in one process.

    python recipes/benchmarks/fertility.py --tokenizers path/to/qwen2.5 --texts th.jsonl vi.jsonl

Each round cuts the text bare (``encode_batch_fast`` in batches of the same size, nothing counted)
and measures it: the basic figures, then with graphemes and intervals, then with the share of words
in one token. The table shows medians of the rounds' ratios to the bare cut, of seconds and of CPU
seconds; where other work shares the cores, the latter is the steadier one. The last columns compare
encoding every word with encoding every distinct word once.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from lightning_vocab.vocabulary import load_tokenizer
from lightning_vocab.vocabulary.fingerprint import backend
from lightning_vocab.vocabulary.measuring.measured_text import measure_text
from lightning_vocab.vocabulary.measuring.text_size import batches


def read_documents(path: str, max_bytes: int) -> list[str]:
    """The ``text`` fields of a ``.jsonl`` file, or the lines of any other file."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    documents = [json.loads(line)["text"] for line in lines] if path.endswith(".jsonl") else lines
    kept, size = [], 0
    for document in documents:
        size += len(document.encode())
        if size > max_bytes:
            break
        kept.append(document)
    return kept


def cut_bare(tokenizer: Tokenizer, documents: list[str]) -> None:
    for batch in batches(documents):
        tokenizer.encode_batch_fast(batch, add_special_tokens=False)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds and CPU seconds."""
    started, cpu_started = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - cpu_started


def measure(tokenizer: PreTrainedTokenizerBase, documents: list[str], repeats: int) -> list[str]:
    """The cells of one row of the table."""
    bare = backend(tokenizer)
    named = {"it": tokenizer}
    words = [word for document in documents for word in document.split()]
    distinct = list(set(words))
    works: list[Callable[[], object]] = [
        lambda: measure_text(named, documents, graphemes=False, word_tokens=False, num_resamples=0),
        lambda: measure_text(named, documents, word_tokens=False),
        lambda: measure_text(named, documents),
    ]
    for work in works:
        work()  # tables of Unicode are built on the first call
    seconds: list[list[float]] = [[] for _ in works]
    cpu_seconds: list[list[float]] = [[] for _ in works]
    bare_seconds, word_ratios = [], []
    for _ in range(repeats):
        for number, work in enumerate(works):
            first, first_cpu = timed(lambda: cut_bare(bare, documents))
            took, took_cpu = timed(work)
            second, second_cpu = timed(lambda: cut_bare(bare, documents))
            seconds[number].append(2 * took / (first + second))
            cpu_seconds[number].append(2 * took_cpu / (first_cpu + second_cpu))
            bare_seconds.append(min(first, second))
        _, every = timed(lambda: cut_bare(bare, words))
        _, once = timed(lambda: cut_bare(bare, distinct))
        word_ratios.append(every / once)
    megabytes = sum(len(document.encode()) for document in documents) / 1e6
    ratios = [
        f"{median(wall):.2f} / {median(cpu):.2f}"
        for wall, cpu in zip(seconds, cpu_seconds, strict=True)
    ]
    return [
        f"{megabytes / median(bare_seconds):.1f}",
        *ratios,
        f"{len(words) / len(distinct):.1f}",
        f"{median(word_ratios):.1f}",
    ]


def main(args: list[str] | None = None) -> None:
    """Parse the arguments, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tokenizers", nargs="+", required=True, help="Folders of tokenizers.")
    parser.add_argument(
        "--texts", nargs="+", required=True, help="Files (.jsonl with `text`, .txt)."
    )
    parser.add_argument("--max-megabytes", type=float, default=5.0, help="Of each text.")
    parser.add_argument("--repeats", type=int, default=3, help="Rounds of which the median counts.")
    options = parser.parse_args(args)
    table = Table(title="Seconds / CPU seconds over those of a bare encode_batch_fast")
    table.add_column("tokenizer, text")
    for column in (
        "bare MB/s",
        "basic",
        "+ graphemes,\nintervals",
        "+ words",
        "words by\ndistinct",
        "every word /\ndistinct once",
    ):
        table.add_column(column, justify="right")
    for path in options.tokenizers:
        tokenizer = load_tokenizer(path)
        for text in options.texts:
            documents = read_documents(text, int(options.max_megabytes * 1e6))
            cells = measure(tokenizer, documents, options.repeats)
            table.add_row(f"{Path(path).name}, {Path(text).stem}", *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
