"""`lightning-vocab check`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lightning_vocab.commands.output import check_place, write_json
from lightning_vocab.commands.texts import parse_texts
from lightning_vocab.contract import (
    ContractInputs,
    Finding,
    check_contract,
    findings_table,
    has_failed,
    load_folder,
    load_manifest,
)
from lightning_vocab.data.documents import read_documents
from lightning_vocab.data.sources import as_sources
from lightning_vocab.demo import resolve_base

_DOCUMENTS = 2000


def check(
    folder: str,
    base: str | None = None,
    expansion: str | None = None,
    text: list[str] | None = None,
    batch: str | None = None,
    batch_size: int | None = None,
    sequence_length: int | None = None,
    chunk_size: int | None = None,
    memory_gib: float | None = None,
    min_context_bytes: int | None = None,
    divisible_by: int | None = None,
    tensor_parallel: int | None = None,
    cache: str | None = None,
    stop: list[str] | None = None,
    protocol: list[str] | None = None,
    old_rows: Literal["unchanged", "trained"] | None = None,
    stage: Literal["trained", "start"] = "trained",
    weights: bool = True,
    json: str | None = None,
) -> int:
    """Say whether a folder is fit to ship: tokenizer, model, vocabulary and data must agree.

    Sixteen items are checked, from the number of rows to the tokens of old text. Each finding is
    pass, warn (worth knowing, or as the base has it), fail, or skip: not checked, and what to give
    for it. The more is given, the more is checked; with --base most of it is. The exit status is 1
    if anything fails, 2 if something cannot be read, else 0.

    Example: lightning-vocab check my-model --base Qwen2.5-0.5B --text th=thai.jsonl --divisible_by
    64 --json findings.json

    Args:
        folder: An exported model, an expansion folder, or a folder with a tokenizer and perhaps a
            config.json; `demo` is the bundled base. What it lacks is not checked.
        base: The folder of the base, before the vocabulary grew, or `demo`. Of its weights only
            the rows are read.
        expansion: The folder with the manifest of the new tokens (vocab_expansion.json), if the
            checked folder does not hold it.
        text: Texts as the model will meet them, one for each language or domain, as
            name=path::field or path. The first 2,000 documents of each are cut.
        batch: A training batch as a safetensors file with input_ids, labels and, where rows are
            padded, attention_mask.
        batch_size: Rows of a training batch, for the memory of its logits.
        sequence_length: Tokens of a row, for the memory of its logits.
        chunk_size: Positions that the training loss scores at a time; all at once if not given.
        memory_gib: GiB that the logits may take.
        min_context_bytes: Bytes of text that the context must hold in every language of --text.
        divisible_by: Number that must divide the rows, such as 64 or 128.
        tensor_parallel: Devices that the rows are split over; must divide the rows too.
        cache: The cache folder of the training data, or one folder of rows in it.
        stop: Strings at which serving stops generation.
        protocol: Tokens of roles and protocols that must be one id, besides those registered.
        old_rows: `unchanged` if no old row may differ from the base, `trained` if they were
            trained on purpose; by default a difference is a warning.
        stage: `trained` judges a checkpoint to be shipped, `start` one before its training.
        weights: Whether to load the model; without it whatever needs its values is not checked.
        json: A file for the findings, for programs.

    Returns:
        1 if anything fails, else 0.
    """
    check_place(json)
    checked = load_folder(resolve_base(folder), weights=weights)
    inputs = ContractInputs(
        batch=None if batch is None else _batch(batch),
        texts=_texts(text or ()),
        batch_size=batch_size,
        sequence_length=sequence_length,
        chunk_size=chunk_size,
        memory_gib=memory_gib,
        min_context_bytes=min_context_bytes,
        divisible_by=[number for number in (divisible_by, tensor_parallel) if number is not None],
        cache=cache,
        stop_strings=stop or (),
        protocol_tokens=protocol or (),
        old_rows=old_rows,
        stage=stage,
    )
    findings = check_contract(
        checked,
        checked.tokenizer,
        _manifest(folder, expansion),
        None if base is None else resolve_base(base),
        inputs,
    )
    Console().print(findings_table(findings, f"Contract of {folder}"))
    if json is not None:
        write_json(json, _report(folder, base, findings))
    return int(has_failed(findings))


def _manifest(folder: str, expansion: str | None) -> Any:
    if expansion is None:
        return load_manifest(resolve_base(folder))
    found = load_manifest(expansion)
    if found is None:
        raise FileNotFoundError(
            f"{expansion!r} is not an expansion folder: it has no vocab_expansion.json."
        )
    return found


def _batch(path: str) -> dict[str, Tensor]:
    if not Path(path).expanduser().is_file():
        raise FileNotFoundError(f"There is no batch {path!r}: expected a safetensors file.")
    try:
        return load_file(Path(path).expanduser())
    except SafetensorError as error:
        raise ValueError(f"{path!r} is no safetensors file: {error}") from error


def _texts(words: Sequence[str]) -> dict[str, list[str]]:
    sources = parse_texts(words)
    return {
        name: list(islice(read_documents(settled), _DOCUMENTS))
        for name, source in sources.items()
        for settled in as_sources(source, "test")
    }


def _report(folder: str, base: str | None, findings: Sequence[Finding]) -> dict[str, Any]:
    return {
        "folder": folder,
        "base": base,
        "failed": has_failed(list(findings)),
        "findings": [finding.to_dict() for finding in findings],
    }
