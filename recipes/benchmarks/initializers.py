"""Time and peak memory of every closed-form initializer against a plain loop over tokens.

    export OMP_NUM_THREADS=1
    python recipes/benchmarks/initializers.py [--size quick|standard|wide|tall|large] [--tied]
    python recipes/benchmarks/initializers.py --size standard --published [--from 1000]

All methods make the rows of the same new tokens of a base of random rows. Times are CPU seconds,
medians of runs taken in turn in one process; each peak is that of a forked process, above what the
inputs take (Linux only). The plain form is the formula written down token by token; that of
matching pursuit keeps an orthonormal basis for a batch of 512 tokens and multiplies residuals with
all atoms. With --repeats 0 each time is that of the one run in the forked process.

Sizes: quick is a smoke test; the others have 10,000 new tokens over 32,000 rows (standard, width
896; wide, width 4,096) or 151,936 (tall, 896; large, 4,096: give it --tied, one matrix is 2.5 GB).

--published measures a tied base against published packages, which are called and not part of this
project's requirements: pip install deepfocus wechsel mergekit. With --from N they make N and N / 2
rows, and their time for all is the line through both; their memory is that of N rows.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import torch
from initializer_inputs import SIZES, RandomSpace, Size, make_context, write_files
from initializer_plain import (
    Plain,
    plain_dictionary,
    plain_hull,
    plain_mean,
    plain_normal,
    plain_pursuit,
    plain_subword,
)
from initializer_published import CASES, Case
from torch import Tensor

from lightning_vocab.initializers import Initializer, Mean, Normal, RowContext, SubwordMean
from lightning_vocab.initializers.convex_hull import ConvexHull
from lightning_vocab.initializers.dictionary import DictionaryAlignment
from lightning_vocab.initializers.focus import FOCUS
from lightning_vocab.initializers.matching_pursuit import OrthogonalMatchingPursuit
from lightning_vocab.initializers.multivariate import Multivariate
from lightning_vocab.initializers.ofa import OFA
from lightning_vocab.initializers.wechsel import WECHSEL

Work = Callable[[], object]

TITLES = ["method", "CPU s", "plain", "times", "peak MiB", "plain MiB"]
PUBLISHED_TITLES = ["method", "published", "rows", "CPU s", "published", "times"]
PUBLISHED_TITLES += ["peak MiB", "published MiB", "difference"]


@dataclass(frozen=True)
class Method:
    """A method and, where there is one, its formula written down token by token."""

    make: Callable[[Path, Size], Initializer]
    plain: Callable[[Path, Size], Plain] | None = None


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


def forked(work: Work) -> tuple[float, float, Any]:
    """CPU seconds, peak MiB above what there is and result of one run in a fork.

    In a fork, no run's memory serves the next.
    """
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=send_measures, args=(work, sender))
    process.start()
    sender.close()  # so that a fork that dies ends the wait
    found: tuple[float, float, Any] = receiver.recv()
    process.join()
    return found


def send_measures(work: Work, sender: Connection) -> None:
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what an earlier run freed would serve this one
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark to what is resident
    start, began = highest_megabytes(), time.process_time()
    made = work()
    taken, peak = time.process_time() - began, highest_megabytes() - start
    sender.send((taken, peak, made.numpy() if isinstance(made, Tensor) else None))


def seconds(works: Sequence[Work], repeats: int) -> list[float]:
    """Median CPU seconds of each work, taken in turn; the first round warms up."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(repeats + 1):
        for times, work in zip(taken, works, strict=True):
            start = time.process_time()
            work()
            times.append(time.process_time() - start)
    return [median(times[1:]) for times in taken]


def works_of(method: Method, context: RowContext, folder: Path, size: Size) -> list[Work]:
    initializer = method.make(folder, size)
    works: list[Work] = [lambda: initializer.rows(context)]
    if method.plain is not None:
        plain, matrices = method.plain(folder, size), (context.input_rows, context.output_rows)
        works.append(lambda: [plain(context, rows) for rows in matrices if rows is not None])
    return works


def plain_row(name: str, works: Sequence[Work], repeats: int) -> list[str]:
    once = [forked(work) for work in works]
    times = seconds(works, repeats) if repeats else [taken for taken, _, _ in once]
    cells = [*(f"{taken:.3f}" for taken in times), "-"][:2]
    ratio = f"{times[1] / times[0]:.1f}" if len(times) > 1 else "-"
    return [name, *cells, ratio, *[*(f"{peak:.0f}" for _, peak, _ in once), "-"][:2]]


def published_row(
    case: Case, context: RowContext, folder: Path, size: Size, counts: list[int], repeats: int
) -> list[str]:
    try:
        theirs = [case.theirs(context, folder, size, count) for count in counts]
    except ImportError as error:
        return [case.name, f"{case.package}: not installed ({error.name})", *"-------"]
    works = [case.ours(context, folder, size), *theirs]
    once = [forked(work) for work in works]
    times = seconds(works, repeats) if repeats else [taken for taken, _, _ in once]
    full = times[1]
    if len(counts) > 1:
        slope = (times[1] - times[2]) / (counts[0] - counts[1])
        full += slope * (size.num_new - counts[0])
    made = [torch.from_numpy(rows)[: counts[0]] for _, _, rows in once[:2]]
    cells = [f"{value:.2f}" for value in (times[0], full)]
    ratio, peaks = f"{full / times[0]:.1f}", [f"{peak:.0f}" for _, peak, _ in once[:2]]
    version, compared = case.version(), case.compared(made[0], made[1], folder)
    return [case.name, version, f"{counts[0]:,}", *cells, ratio, *peaks, compared]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="quick", choices=SIZES)
    parser.add_argument("--only", nargs="+", choices=[*METHODS, *CASES])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tied", action="store_true", help="one matrix; implied by --published")
    parser.add_argument("--new", type=int, help="new tokens, if not those of the size")
    parser.add_argument("--published", action="store_true")
    parser.add_argument("--from", type=int, dest="count", help="rows that published packages make")
    args = parser.parse_args()
    known = CASES if args.published else METHODS
    if not known.keys() >= set(args.only or ()):
        parser.error(f"--only takes {', '.join(known)} here, got {', '.join(args.only)}")
    torch.set_num_threads(1)  # a forked process cannot use the threads of its parent
    size = SIZES[args.size]
    size = size._replace(num_new=args.new or size.num_new)
    context = make_context(size, tied=args.tied or args.published)
    _ = context.base_ids  # the same for all methods, and computed once in an expansion
    print(f"{size}\n")
    print_row(PUBLISHED_TITLES if args.published else TITLES)
    print_row(["---"] * len(PUBLISHED_TITLES if args.published else TITLES))
    counts = [args.count, args.count // 2] if args.count else [size.num_new]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, size, context.input_rows)
        for each in args.only or known:
            if args.published:
                case = CASES[each]
                print_row(published_row(case, context, folder, size, counts, args.repeats))
            else:
                works = works_of(METHODS[each], context, folder, size)
                print_row(plain_row(each, works, args.repeats))


def print_row(cells: Sequence[str]) -> None:
    """A row of a Markdown table, at once: some take minutes."""
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
