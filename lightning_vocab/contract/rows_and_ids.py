"""Items 1, 2, 11 and 14: rows, ids, padding_idx, and rows without a token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from lightning_vocab.contract.finding import Check, Finding
from lightning_vocab.contract.probes import NASTY_TEXT, OLD_TEXT
from lightning_vocab.contract.subject import Subject
from lightning_vocab.vocabulary.fingerprint import backend
from lightning_vocab.vocabulary.guarantees import dead_tokens
from lightning_vocab.vocabulary.wording import counted, some

HEIGHTS = Check(1, "heights")
IDS = Check(2, "ids")
PADDING_IDX = Check(11, "padding_idx")
DIVISIBLE = Check(14, "divisible rows")
PADDING_ROWS = Check(14, "padding rows")
NO_MODEL = "give the folder of the model with its weights"


def check_heights(subject: Subject) -> Iterator[Finding]:
    """Item 1: the tokenizer's length against the rows of embedding, head, head bias and config."""
    heights, length = subject.heights, len(subject.checked.tokenizer)
    if subject.checked.misfits:
        yield HEIGHTS.failed(
            f"stored tensors have other shapes than the config asks for: "
            f"{some(subject.checked.misfits)}",
            "resize embedding and head together, enter the height in the config, and save again",
        )
        return
    if not heights:
        yield HEIGHTS.skipped("no model and no config: nothing has rows", NO_MODEL)
        return
    shown = ", ".join(f"{name} {rows:,}" for name, rows in heights.items())
    found = f"{counted(length, 'token')}; rows: {shown}"
    if not subject.is_one_height:
        yield HEIGHTS.failed(
            found, "resize embedding, head, head bias and config.vocab_size to one height"
        )
    elif length > min(heights.values()):
        yield HEIGHTS.failed(
            found, "resize the model: it needs at least one row for each token of the tokenizer"
        )
    else:
        yield HEIGHTS.passed(found)
    if len(heights) == 1:
        yield HEIGHTS.skipped("the weights were not looked at: the config alone counts", NO_MODEL)


def check_ids(subject: Subject) -> Iterator[Finding]:
    """Item 2: ids below the rows, one token an id, and nothing out of reach."""
    problems = [
        *_beyond(subject),
        *_twice(subject),
        *_into_holes(subject),
        *_dead(subject),
    ]
    ids, rows = subject.checked.tokens, subject.num_rows
    holes = max(ids) + 1 - len(ids)
    behind = 0 if rows is None else max(0, rows - max(ids) - 1)
    yield from IDS.settled_in_part(
        problems,
        f"{len(ids):,} ids from 0 to {max(ids):,}; {counted(holes, 'hole')} and "
        f"{counted(behind, 'row')} behind them without a token, and no text reaches one",
    )


def check_padding_idx(subject: Subject) -> Iterator[Finding]:
    """Item 11: the row that `torch.nn.Embedding` never trains is that of a pure pad token."""
    checked = subject.checked
    if checked.model is None:
        yield PADDING_IDX.skipped("no model to look at", NO_MODEL)
        return
    id: Any = getattr(checked.model.get_input_embeddings(), "padding_idx", None)
    token = None if id is None else checked.tokens.get(id)
    if id is None or token is None:
        yield PADDING_IDX.passed("none is set" if id is None else f"{id} has no token")
        return
    tokenizer = checked.tokenizer
    is_pad = id == tokenizer.pad_token_id
    also = [name for name in ("bos_token", "eos_token") if getattr(tokenizer, f"{name}_id") == id]
    if is_pad and not also:
        yield PADDING_IDX.passed(f"{id} is the pad token {token!r}, which no label names")
        return
    base = None if subject.base is None else subject.base.shape
    of_base = getattr(base and base.get_input_embeddings(), "padding_idx", None)
    says = f"also the {' and the '.join(also)}" if also else "not the pad token"
    yield PADDING_IDX.judged(
        f"padding_idx={id} is {token!r}, {says}: its input row gets no gradient",
        "set padding_idx of the embedding to None, or give padding a token of its own",
        as_base=of_base == id,
    )


def check_divisible(subject: Subject) -> Iterator[Finding]:
    """Item 14: the number of rows against the numbers asked for."""
    rows, asked = subject.num_rows, subject.inputs.divisible_by
    if rows is None:
        yield DIVISIBLE.skipped("the number of rows is not known", NO_MODEL)
        return
    if subject.checked.misfits or not subject.is_one_height:
        yield DIVISIBLE.skipped("the parts of the model differ in height", "see item 1")
        return
    power = rows & -rows
    if not asked:
        yield DIVISIBLE.skipped(
            f"{rows:,} rows, divisible by {power}",
            "say by what they must be divisible (64 or 128; the tensor-parallel size)",
        )
        return
    wrong = [number for number in asked if rows % number]
    if wrong:
        yield DIVISIBLE.failed(
            f"{rows:,} rows are not divisible by {some(wrong)}",
            f"expand with pad_to_multiple_of={max(wrong)}",
        )
        return
    yield DIVISIBLE.passed(f"{rows:,} rows are divisible by {some(asked)}")


def check_padding_rows(subject: Subject) -> Iterator[Finding]:
    """Item 14: generation cannot emit an id without a token, and can emit every new one."""
    checked, rows = subject.checked, subject.num_rows
    if rows is None:
        yield PADDING_ROWS.skipped("the number of rows is not known", NO_MODEL)
        return
    if checked.misfits:  # the rows that the config counts are not those that are stored
        yield PADDING_ROWS.skipped("weights and config differ in height", "see item 1")
        return
    config = checked.generation_config
    suppressed = set(getattr(config, "suppress_tokens", None) or ())
    unnamed = set(range(rows)) - set(checked.tokens)
    problems = list(_suppressed_tokens(subject, suppressed))
    open_ids = sorted(unnamed - suppressed)
    if open_ids and subject.inputs.stage == "start":
        problems.append(
            PADDING_ROWS.skipped(
                f"not masked yet: {counted(len(open_ids), 'row')} without a token",
                "export_model masks them; check the exported folder",
            )
        )
    elif open_ids:
        # A base is often shipped so; a vocabulary that was grown must not be.
        problems.append(
            (PADDING_ROWS.failed if subject.expansion is not None else PADDING_ROWS.warned)(
                f"can be generated: {counted(len(open_ids), 'row')} without a token, such as "
                f"{some(open_ids)}",
                "list them as suppress_tokens in generation_config.json, as export_model does",
            )
        )
    yield from PADDING_ROWS.settled(
        problems, f"masked in generation: {counted(len(unnamed), 'row')} without a token"
    )


def _suppressed_tokens(subject: Subject, suppressed: set[int]) -> Iterator[Finding]:
    named = sorted(suppressed & set(subject.checked.tokens))
    new = sorted(set(named) & set(subject.new_ids or ()))
    if new:
        yield PADDING_ROWS.failed(
            f"masked in generation: {counted(len(new), 'new token')}, such as "
            f"{some(subject.checked.tokens[id] for id in new)}",
            "take their ids out of suppress_tokens in generation_config.json",
        )
    elif named:
        yield PADDING_ROWS.warned(
            f"masked in generation: {counted(len(named), 'token')}, such as "
            f"{some(subject.checked.tokens[id] for id in named)}",
            "take their ids out of suppress_tokens unless this is meant",
        )


def _beyond(subject: Subject) -> Iterator[Finding]:
    checked, rows = subject.checked, subject.num_rows
    if rows is None:
        yield IDS.skipped("the number of rows is not known", NO_MODEL)
        return
    # A tokenizer longer than the matrix is item 1's; here is what its length does not explain.
    bound = max(rows, len(checked.tokenizer))
    beyond = {token: id for token, id in checked.ids.items() if id >= bound}
    if beyond:
        yield IDS.failed(
            f"{counted(len(beyond), 'token')} with an id without a row ({rows:,} rows): "
            f"{some(beyond.items())}",
            "give the tokens ids below the number of rows, or resize the model above the highest "
            "id: the length of a tokenizer with holes says too little",
        )


def _twice(subject: Subject) -> Iterator[Finding]:
    ids = subject.checked.ids
    twice = {id for id, count in Counter(ids.values()).items() if count > 1}
    if twice:
        names = [(token, id) for token, id in ids.items() if id in twice]
        yield IDS.failed(
            f"{counted(len(twice), 'id')} of more than one token: {some(sorted(names))}",
            "give each token an id of its own: the model cannot tell them apart",
        )


def _into_holes(subject: Subject) -> Iterator[Finding]:
    checked = subject.checked
    named, probes = set(checked.tokens), [*OLD_TEXT, *NASTY_TEXT]
    emitted = {i for ids in checked.tokenizer(probes, verbose=False).input_ids for i in ids}
    emitted |= {id for _, ids in template_ids(checked.state.data["post_processor"]) for id in ids}
    if holes := sorted(emitted - named):
        yield IDS.failed(
            f"text is cut into ids that have no token: {some(holes)}",
            "enter the token's true id in the post-processor of tokenizer.json",
        )


def _dead(subject: Subject) -> Iterator[Finding]:
    checked = subject.checked
    if subject.new_ids is None:
        yield IDS.skipped(
            "which tokens are new is not known, so none was tried for being out of reach",
            "give the expansion or the base",
        )
        return
    added = {item["id"] for item in checked.state.added_tokens}
    new = {i: checked.tokens[i] for i in subject.new_ids if i in checked.tokens and i not in added}
    if dead := dead_tokens(backend(checked.tokenizer), new):
        yield IDS.failed(
            f"can never be produced: {counted(len(dead), 'new token')}, such as "
            f"{some(new[id] for id in dead)}: no merges lead to them",
            "append the merges they need behind those of the base, or leave the tokens out",
        )
    listed = () if subject.expansion is None else subject.expansion.tokens
    if wrong := [each.token for each in listed if checked.ids.get(each.token) != each.id]:
        yield IDS.failed(
            f"not in the tokenizer, or of another id: {counted(len(wrong), 'token')} of the "
            f"manifest, {some(wrong)}",
            "take the tokenizer that the manifest was written for",
        )


def template_ids(processor: dict[str, Any] | None) -> Iterator[tuple[str, list[int]]]:
    """Each special token that a post-processor puts around text, with the ids it writes.

    Args:
        processor: The ``post_processor`` of a tokenizer.json.
    """
    for part in (processor or {}).get("processors", [processor] if processor else []):
        for token in (part.get("special_tokens") or {}).values():
            yield from (
                (name, [id]) for name, id in zip(token["tokens"], token["ids"], strict=True)
            )
        for role in ("cls", "sep"):  # of the Bert and Roberta kinds
            if isinstance(part.get(role), list):
                yield part[role][0], [part[role][1]]
