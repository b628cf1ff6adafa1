"""`lightning-vocab fertility`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import reduce
from operator import add
from typing import Any

from rich.console import Console

from lightning_vocab.commands.fertility_inputs import (
    Subject,
    find_documents,
    find_splitter,
    find_subjects,
)
from lightning_vocab.commands.fertility_tables import (
    figures_table,
    new_tokens_table,
    parity_table,
)
from lightning_vocab.commands.output import check_place, write_json
from lightning_vocab.vocabulary.folder import MANIFEST_NAME
from lightning_vocab.vocabulary.measuring.measured_text import MeasuredText, measure_text
from lightning_vocab.vocabulary.measuring.new_token_use import NewTokenUse
from lightning_vocab.vocabulary.measuring.parity import parity
from lightning_vocab.vocabulary.measuring.token_frequency import TokenFrequency
from lightning_vocab.vocabulary.progress import Progress


def fertility(
    tokenizers: list[str],
    text: list[str] | None = None,
    aligned: list[str] | None = None,
    context_length: int | None = None,
    word_pattern: str | None = None,
    word_splitter: str | None = None,
    training_tokens: int | None = None,
    floor: float = 100,
    num_resamples: int = 500,
    seed: int = 7,
    json: str | None = None,
) -> None:
    """Measure what tokenizers make of text, side by side: tokens per word, character, byte.

    Prints a table for each text and one for all texts together; changes are those against the
    first tokenizer. Shares are of the tokens of the text. "Partial characters" are tokens of a
    byte-level vocabulary that are not whole characters, "byte fallback" tokens such as <0xE0> of a
    vocabulary of characters. Rényi efficiency (order 2.5) is 1 where every token is used equally
    often. Intervals are 95 % bootstrap intervals over documents. Words are not counted where most
    letters belong to a script that sets no blanks between words, unless they are given, and not
    over all texts if one of them is such a text. For an expansion folder, the use of its new tokens
    is shown too.

    Args:
        tokenizers: Folders with a tokenizer, expansion folders, ids on the hub, or demo. The
            others are compared with the first.
        text: Texts as name=path::field, path::field or path; a path is a .txt, .jsonl, .jsonl.gz
            or .parquet file, a folder of such files, demo:english, demo:code, or a data set on the
            hub.
        aligned: Texts that say the same row by row in several languages, as en=n.jsonl::en
            th=n.jsonl::th. Parity is the tokens of each over the tokens of the one named en, or of
            the first.
        context_length: Tokens of a context, for the text that it holds. By default the smallest
            that the tokenizer and the config.json beside it name.
        word_pattern: Regular expression that matches a word, for scripts without blanks.
        word_splitter: Function module:name that cuts a string into a list of words.
        training_tokens: Tokens of a training run on such text. Lists the new rows of each
            expansion folder that will be trained too rarely in it.
        floor: Direct updates that a new row should get at least in the training.
        num_resamples: Bootstrap resamples for the intervals; 0 for none.
        seed: Seed of the resamples.
        json: File for all numbers, with the count of every new token.
    """
    check_place(json)
    _check_numbers(context_length, training_tokens, num_resamples, floor)
    split_words = find_splitter(word_pattern, word_splitter)
    documents, aligned_names = find_documents(text or [], aligned or [])
    subjects = find_subjects(tokenizers, context_length)
    if training_tokens is not None and not any(each.new_tokens for each in subjects.values()):
        raise ValueError(
            "--training_tokens asks how often new rows are trained, but no tokenizer given is an "
            f"expansion folder (with {MANIFEST_NAME})."
        )
    loaded = {name: subject.tokenizer for name, subject in subjects.items()}
    measured: dict[str, MeasuredText] = {}
    with Progress() as progress:
        for number, (name, texts) in enumerate(documents.items()):
            progress.phase(f"measuring {name}")
            measured[name] = measure_text(
                loaded,
                texts,
                split_words=split_words,
                num_resamples=num_resamples,
                seed=seed if name in aligned_names else seed + 1 + number,
                on_batch=progress.advance,
            )
    runs = {} if training_tokens is None else _runs(measured, subjects, training_tokens)
    result = _result(measured, aligned_names, subjects)
    result["token_frequency"] = {name: run.to_dict(floor) for name, run in runs.items()}
    _show(result, runs, floor)
    if json is not None:
        write_json(json, result)


def _check_numbers(
    context_length: int | None, training_tokens: int | None, num_resamples: int, floor: float
) -> None:
    for name, value in (("context_length", context_length), ("training_tokens", training_tokens)):
        if value is not None and value < 1:
            raise ValueError(f"Expected --{name} of at least 1, got {value}.")
    if num_resamples < 0 or floor < 0:
        raise ValueError(
            f"Expected --num_resamples and --floor of at least 0, got {num_resamples} and {floor}."
        )


def _result(
    measured: Mapping[str, MeasuredText], aligned: list[str], subjects: Mapping[str, Subject]
) -> dict[str, Any]:
    """Everything that was found, as plain values."""
    total = reduce(add, measured.values())
    # Tokens per word of two texts over the words of one would be no figure of either.
    all_have_words = all(text.size.num_words is not None for text in measured.values())
    return {
        "tokenizers": {
            name: {
                "path": subject.path,
                "num_tokens": len(subject.tokenizer),
                "context_length": subject.context_length,
            }
            for name, subject in subjects.items()
        },
        "texts": {name: _figures(text, subjects) for name, text in measured.items()},
        "total": _figures(total, subjects, has_words=all_have_words),
        "parity": _parity(measured, aligned, subjects),
    }


def _figures(
    text: MeasuredText, subjects: Mapping[str, Subject], *, has_words: bool = True
) -> dict[str, Any]:
    found: dict[str, Any] = {"size": asdict(text.size), "tokenizers": {}}
    if not has_words:
        found["size"]["num_words"] = None
    for name, subject in subjects.items():
        figures = text.figures(name, subject.tokenizer)
        if not has_words:
            figures |= dict.fromkeys(("tokens_per_word", "words_in_one_token_share"))
            figures["intervals"]["tokens_per_word"] = None
        for unit in ("byte", "character", "word"):
            ratio, length = figures[f"tokens_per_{unit}"], subject.context_length
            figures[f"effective_context_{unit}s"] = length / ratio if length and ratio else None
        if subject.new_tokens:
            ids = [token.id for token in subject.new_tokens]
            counts, num_tokens = text.counts_of(name, ids), figures["num_tokens"]
            figures["new_tokens"] = NewTokenUse(subject.new_tokens, counts, num_tokens).to_dict()
        found["tokenizers"][name] = figures
    return found


def _parity(
    measured: Mapping[str, MeasuredText], aligned: list[str], subjects: Mapping[str, Subject]
) -> dict[str, Any] | None:
    if not aligned:
        return None
    reference = "en" if "en" in aligned else aligned[0]
    return {
        "reference": reference,
        "texts": {
            text: {
                name: asdict(parity(measured[text], measured[reference], name)) for name in subjects
            }
            for text in aligned
            if text != reference
        },
    }


def _runs(
    measured: Mapping[str, MeasuredText], subjects: Mapping[str, Subject], training_tokens: int
) -> dict[str, TokenFrequency]:
    total = reduce(add, measured.values())
    return {
        name: TokenFrequency(
            subject.new_tokens,
            total.counts_of(name, [token.id for token in subject.new_tokens]),
            int(total.counts[name].sum()),
            training_tokens,
        )
        for name, subject in subjects.items()
        if subject.new_tokens
    }


def _show(result: dict[str, Any], runs: Mapping[str, TokenFrequency], floor: float) -> None:
    console = Console()
    named = dict(result["texts"])
    if len(named) > 1:
        named["all texts"] = result["total"]
    for name, found in named.items():
        console.print(figures_table(name, found))
    if result["parity"] is not None:
        console.print(parity_table(result["parity"]))
    grown = {
        name: each for name, each in result["total"]["tokenizers"].items() if "new_tokens" in each
    }
    if grown:
        console.print(new_tokens_table(grown))
    for name, run in runs.items():
        console.print(f"[bold]{name}[/bold]")
        console.print(run.table(floor))
