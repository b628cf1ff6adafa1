"""What a probe found: in a table, in words, and as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

from lightning_vocab.probing.candidates import Candidate
from lightning_vocab.probing.ranking import FEWEST_DOCUMENTS, Standing, rank
from lightning_vocab.probing.trials import Trial
from lightning_vocab.vocabulary.wording import counted

_TRAINED = {"frozen": "the new rows alone", "embeddings": "all rows", "full": "everything"}


@dataclass(frozen=True, eq=False)
class Outcome:
    """All trials of a probe and what follows from them.

    Args:
        candidates: The initializers, in the order in which they were named.
        trials: Trials of each initializer, by label, in the order of the repeats.
        standings: The initializers, the best first.
        on: The validation source that ranks.
        steps: Optimizer steps of each trial.
    """

    candidates: Sequence[Candidate]
    trials: dict[str, list[Trial]]
    standings: list[Standing]
    on: str
    steps: int

    @classmethod
    def of(
        cls, candidates: Sequence[Candidate], trials: Sequence[Trial], on: str, steps: int
    ) -> Outcome:
        """Rank the trials.

        Args:
            candidates: The initializers.
            trials: All trials; equally many of each initializer.
            on: The validation source that ranks.
            steps: Optimizer steps of each trial.
        """
        of_label: dict[str, list[Trial]] = {each.label: [] for each in candidates}
        for trial in trials:
            of_label[trial.label].append(trial)
        nats = torch.stack(
            [torch.stack([trial.end[on].nats for trial in each]) for each in of_label.values()]
        )
        standings = rank(list(of_label), nats, trials[0].end[on].num_bytes)
        return cls(candidates, of_label, standings, on, steps)

    @property
    def best(self) -> Candidate:
        """The initializer with the fewest bits per byte."""
        return self._candidate(self.standings[0].label)

    @property
    def as_good(self) -> Standing | None:
        """Of those tied with the best, the cheapest, if one is cheaper than the best.

        Cheaper is what takes less CPU time for its rows, to a tenth of a second, and else what was
        named earlier: the simple ones are named first.
        """
        tied = [each for each in self.standings if each.verdict != "worse"]
        places = [each.label for each in self.candidates]

        def cost(standing: Standing) -> tuple[float, int]:
            seconds = mean(trial.seconds for trial in self.trials[standing.label])
            return round(seconds, 1), places.index(standing.label)

        cheapest = min(tied, key=cost)
        return None if cheapest.verdict == "best" else cheapest

    @property
    def num_documents(self) -> int:
        """Documents of the source that ranks."""
        return len(self.trials[self.best.label][0].end[self.on].num_bytes)

    @property
    def num_repeats(self) -> int:
        """Trainings of each initializer."""
        return len(self.trials[self.best.label])

    def table(self) -> Table:
        """A line for each initializer, the best first."""
        sources = list(self.trials[self.best.label][0].end)
        table = Table(box=SIMPLE_HEAD, title=f"Bits per byte, at step 0 and after {self.steps}")
        table.add_column("initializer", overflow="fold")
        for title in ["made\nitself", "CPU s\nof rows", *sources, "to the best,\n95 % interval"]:
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("verdict")
        for standing in self.standings:
            trials = self.trials[standing.label]
            coverage = trials[0].coverage
            cells = ["all" if coverage is None else f"{coverage.share:.1%}"]
            cells.append(f"{mean(trial.seconds for trial in trials):.1f}")
            for name in sources:
                starts = [trial.start[name].bits_per_byte for trial in trials]
                ends = [trial.end[name].bits_per_byte for trial in trials]
                cells.append(f"{mean(starts):.4f}\n{mean(ends):.4f}")
            cells.append(difference(standing).replace(" (", "\n").rstrip(")"))
            table.add_row(standing.label, *cells, standing.verdict)
        return table

    def lines(self) -> list[str]:
        """What the table means."""
        phase = self.trials[self.best.label][-1].phase
        lines = [
            f"Ranked on {self.on}: {counted(self.num_documents, 'document')}, "
            f"{counted(self.num_repeats, 'seed')}. At the last step {_TRAINED[phase]} trained. "
            "Noise: the interval of the difference holds 0."
        ]
        if self.num_documents < FEWEST_DOCUMENTS:
            lines.append(
                f"Fewer than {FEWEST_DOCUMENTS} documents do not tell how far a difference would "
                "wander on other text: all count as noise. Validate on more documents."
            )
        if self.num_repeats == 1:
            lines.append("One seed: the intervals know of other documents, not of other draws.")
        lines += [
            str(trials[0].coverage)
            for trials in self.trials.values()
            if trials[0].coverage is not None and trials[0].coverage.missing
        ]
        return [*lines, self.verdict()]

    def verdict(self) -> str:
        """The best in a line and, where it is tied, the cheapest that is as good."""
        best, other = self.standings[0], self.as_good
        said = (
            f"{best.label}: {best.bits_per_byte:.4f} bits per byte of {self.on} after {self.steps} "
            f"steps, the best of {len(self.standings)}."
        )
        if other is None:
            return said
        return (
            f"{said} As good, and cheaper or simpler: {other.label} ({difference(other)} is noise)."
        )

    def as_plain(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        return {
            "on": self.on,
            "steps": self.steps,
            "num_documents": self.num_documents,
            "best": self.best.value,
            "as_good": None if self.as_good is None else self._candidate(self.as_good.label).value,
            "initializers": [self._method_as_plain(each) for each in self.standings],
        }

    def _method_as_plain(self, standing: Standing) -> dict[str, Any]:
        trials = self.trials[standing.label]
        coverage = trials[0].coverage
        scores = {
            when: {
                name: [getattr(trial, when)[name].bits_per_byte for trial in trials]
                for name in trials[0].end
            }
            for when in ("start", "end")
        }
        return {
            **asdict(standing),
            "initializer": self._candidate(standing.label).value,
            "bits_per_byte_of_each_seed": scores,
            "coverage": None if coverage is None else coverage.share,
            "cpu_seconds_of_rows": [trial.seconds for trial in trials],
            "phase": trials[-1].phase,
        }

    def _candidate(self, label: str) -> Candidate:
        return next(each for each in self.candidates if each.label == label)


def difference(standing: Standing) -> str:
    """``+0.0123 (-0.0010 to +0.0256)``; empty for the best.

    Args:
        standing: Where an initializer stands.
    """
    if standing.verdict == "best":
        return ""
    if standing.interval is None:
        return f"{standing.difference:+.4f}"
    low, high = standing.interval
    return f"{standing.difference:+.4f} ({low:+.4f} to {high:+.4f})"
