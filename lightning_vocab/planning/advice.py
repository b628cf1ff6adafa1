"""What `lightning-vocab plan` recommends: a size, a method, and the reasons with their numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lightning_vocab.planning.points import Plan
from lightning_vocab.vocabulary.wording import counted

Method = Literal["none", "continued_bpe", "continued_bpe_into_slots", "add_tokens", "reuse_slots"]


@dataclass(frozen=True)
class Rules:
    """What the advice goes by.

    Args:
        min_gain: Share of the held-out tokens that new tokens must save for an expansion to pay.
            In-place growth from 65K to 128K tokens made English and code up to 9 % slower
            (arXiv 2607.15232), so that less can be lost elsewhere.
        min_gain_per_thousand: Share of the held-out tokens that the last 1,000 new tokens must
            save, where the model's size is unknown and compute per byte cannot tell when to stop.
        few: A gain counts as concentrated if so many tokens bring most of it.
        few_share: How much of the gain "most" is.

    Raises:
        ValueError: If a share to be saved is not between 0 and 1.
    """

    min_gain: float = 0.10
    min_gain_per_thousand: float = 0.005
    few: int = 100
    few_share: float = 0.8

    def __post_init__(self) -> None:
        shares = {
            "min_gain": self.min_gain,
            "min_gain_per_thousand": self.min_gain_per_thousand,
        }
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"Expected {name} between 0 and 1, a share, got {share}.")


@dataclass(frozen=True)
class Advice:
    """The recommendation.

    Args:
        method: How to expand; ``none`` is "do not expand".
        num_new_tokens: How many tokens; 0 for none.
        gain: Share of held-out tokens that they save.
        reasons: Why, a sentence each.
    """

    method: Method
    num_new_tokens: int
    gain: float
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Limit:
    """The largest size that one consideration allows.

    Args:
        size: The size.
        reason: The consideration with its numbers.
    """

    size: int
    reason: str


def advise(plan: Plan, rules: Rules, *, fixed_size: bool = False) -> Advice:
    """A size and a method for tokens that are learned from text.

    The size is the largest that every limit allows, rounded down to two digits: rows are seen
    often enough (`Budget.floor`), and compute per byte is not past its lowest point, or, where the
    model's size is unknown, the last 1,000 tokens still save ``min_gain_per_thousand``.

    Args:
        plan: What was measured.
        rules: Thresholds.
        fixed_size: Whether no matrix may grow, so that new tokens need slots.
    """
    saved = plan.all_held_out.share_saved
    worth, seen = _worth(plan, rules), _seen(plan)
    size = _rounded(min(worth.size, seen.size))
    gain, possible = float(saved[size]), float(saved[worth.size])
    if possible < rules.min_gain:
        return Advice("none", 0, gain, (_covered(plan, rules, worth.size), worth.reason))
    if gain < rules.min_gain:
        return Advice("none", 0, gain, (_too_little_text(plan, rules, size, possible), seen.reason))
    reasons = [_gain(plan, size), worth.reason, seen.reason]
    if fixed_size:
        return _into_slots(plan, rules, size, reasons)
    if rules.few < size and saved[rules.few] >= rules.few_share * gain:
        # The gain of the size that is advised comes first: the larger one is only its limit.
        reasons[:1] = [_gain(plan, rules.few), _concentrated(plan, rules, size)]
        size = rules.few
    if size == plan.largest or size == _rounded(plan.largest):
        reasons.append(
            f"The curve ends at {counted(plan.largest, 'token')}: a larger max_new_tokens "
            "or more text may show that more pay."
        )
    reasons += [_method(plan, size)]
    return Advice("continued_bpe", size, float(saved[size]), tuple(reasons))


def advise_for_list(plan: Plan, num_listed: int, saved: float, *, fixed_size: bool) -> Advice:
    """The method for tokens that the user lists.

    Args:
        plan: What was measured.
        num_listed: How many tokens are listed.
        saved: Share of the held-out tokens that they save.
        fixed_size: Whether no matrix may grow.
    """
    reasons = [
        f"{counted(num_listed, 'token')} on the list: listed tokens are matched wherever their "
        f"text stands and need no training text to be found. They save {saved:.1%} of the held-out "
        "tokens.",
    ]
    if saved < 0:
        reasons.append(
            "They make the text longer: a listed word is cut out of longer words. List protocol "
            "tokens only, and learn words from text (leave tokens_file out)."
        )
    if not fixed_size:
        return Advice("add_tokens", num_listed, saved, tuple(reasons))
    check_room(num_listed, plan.num_slots)
    reasons.append(
        f"The model keeps its {plan.base_rows:,} rows, and its serving cost: {num_listed} of "
        f"{counted(plan.num_slots, 'slot')} will be taken."
    )
    return Advice("reuse_slots", num_listed, saved, tuple(reasons))


def check_room(num_listed: int, num_slots: int) -> None:
    """Refuse a list that is longer than a base has slots.

    Args:
        num_listed: How many tokens are listed.
        num_slots: How many slots the base has.

    Raises:
        ValueError: If no matrix may grow and the list does not fit.
    """
    if num_listed > num_slots:
        raise ValueError(
            f"Expected a list that fits into the base's {counted(num_slots, 'slot')}, as no matrix "
            f"may grow, got {counted(num_listed, 'token')}: list fewer, or set fixed_size to false."
        )


def _worth(plan: Plan, rules: Rules) -> Limit:
    """The size behind which further tokens are not worth their rows."""
    flop = plan.flop_per_byte()
    if flop is not None:
        size = int(flop.argmin())
        return Limit(
            size,
            f"Compute per byte is lowest with {counted(size, 'new token')} "
            f"({flop[size] / flop[0] - 1:+.1%} FLOP per byte, forward); behind that a wider "
            "head costs more than fewer tokens save."
            if size < plan.largest
            else f"Compute per byte still sinks at {counted(size, 'new token')}, the largest size "
            f"looked at ({flop[size] / flop[0] - 1:+.1%} FLOP per byte, forward).",
        )
    saved = plan.all_held_out.share_saved
    sizes = np.arange(plan.largest + 1)
    behind = np.minimum(sizes, 1000)
    rate = (saved - saved[sizes - behind]) * 1000 / np.maximum(behind, 1)
    pays = np.flatnonzero(rate >= rules.min_gain_per_thousand)
    size = int(pays[-1]) if len(pays) else 0
    return Limit(
        size,
        f"Up to {counted(size, 'new token')}, 1,000 tokens more save at least "
        f"{rules.min_gain_per_thousand:.1%} of the held-out tokens. The model's size is unknown "
        f"({plan.model.unknown_because}), so their cost was not weighed.",
    )


def _seen(plan: Plan) -> Limit:
    """The size behind which a new token is seen too rarely, even without later ones."""
    enough = np.flatnonzero(plan.expected_when_made() >= plan.budget.floor)
    size = int(enough[-1]) + 1 if len(enough) else 0
    budget = plan.budget.training_tokens
    text = "One pass over this text" if budget is None else f"Training on {budget:,.0f} tokens"
    return Limit(
        size,
        f"{text} shows {size:,} of {counted(plan.largest, 'new token')} at least "
        f"{counted(plan.budget.floor, 'time')}; a rarer row is hardly trained.",
    )


def _covered(plan: Plan, rules: Rules, size: int) -> str:
    curve = plan.all_held_out
    return (
        f"The base covers this text well: it needs {curve.tokens_per_byte[0]:.3f} tokens per byte, "
        f"and {counted(size, 'new token')} would save only {curve.share_saved[size]:.1%} of the "
        f"held-out tokens, less than {rules.min_gain:.0%}."
    )


def _too_little_text(plan: Plan, rules: Rules, size: int, possible: float) -> str:
    return (
        f"There is too little text to train new rows on: vocabulary alone could save "
        f"{possible:.1%} of the held-out tokens, but it saves only "
        f"{plan.all_held_out.share_saved[size]:.1%} with the {counted(size, 'new token')} that "
        f"training shows often enough, less than {rules.min_gain:.0%}. Give more text, or say by "
        "training_tokens how much there will be."
    )


def _gain(plan: Plan, size: int) -> str:
    curve = plan.all_held_out
    return (
        f"{curve.share_saved[size]:.1%} of the held-out tokens are saved by "
        f"{counted(size, 'new token')}: "
        f"{curve.tokens_per_byte[0]:.3f} tokens per byte become "
        f"{curve.tokens_per_byte[size]:.3f}."
    )


def _concentrated(plan: Plan, rules: Rules, size: int) -> str:
    saved = plan.all_held_out.share_saved
    return (
        f"That is {saved[rules.few] / saved[size]:.0%} of the {saved[size]:.1%} that "
        f"{size:,} new tokens would save. {size:,} is the limit where the gain ends, not the "
        f"advice: {rules.few} rows are learned in a short run, so that these are enough."
    )


def _into_slots(plan: Plan, rules: Rules, size: int, reasons: list[str]) -> Advice:
    size = min(size, plan.num_slots)
    gain = float(plan.all_held_out.share_saved[size])
    slots = (
        f"No matrix may grow: the base has {counted(plan.num_slots, 'slot')}, and {gain:.1%} of "
        f"the held-out tokens are saved by {counted(size, 'new token')} in them"
    )
    if gain < rules.min_gain:
        return Advice("none", 0, gain, (f"{slots}, less than {rules.min_gain:.0%}.", *reasons))
    reasons = [f"{slots}; serving costs what it did.", *reasons[1:]]
    return Advice("continued_bpe_into_slots", size, gain, tuple(reasons))


def _method(plan: Plan, size: int) -> str:
    rows = plan.num_added_rows(size)
    grown = (
        f"the matrix grows by {counted(rows, 'row')}"
        if rows
        else "no matrix grows, as the base has "
        + counted(plan.base_rows - plan.first_new_row, "padded row")
    )
    return (
        "Method: continued BPE, which appends merges, so that no text gets more tokens than before "
        f"({grown}); rows start as the mean of the pieces that they replace (SubwordMean)."
    )


def _rounded(size: int) -> int:
    """Down to two digits: 2,847 becomes 2,800."""
    unit: int = 10 ** max(0, len(str(size)) - 2)
    return size // unit * unit
