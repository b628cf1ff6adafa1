"""Item 3: what tokenizer, config, generation config, post-processor and chat template call them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import regex
from jinja2 import TemplateError
from transformers import GenerationConfig, PreTrainedConfig

from lightning_vocab.contract.finding import Check, Finding
from lightning_vocab.contract.rows_and_ids import template_ids
from lightning_vocab.contract.subject import ModelWithTokenizer, Subject
from lightning_vocab.vocabulary.wording import counted, some

AGREE = Check(3, "special ids")
MOVED = Check(3, "special ids of the base")
TEMPLATE = Check(3, "chat template")
ROLES = ("bos_token", "eos_token", "pad_token")
LITERAL = regex.compile(r"<[|｜][^|｜<>\s'\"{}+]{1,60}[|｜]>")
"""What looks like a special token in a chat template."""

_ANSWER = "an answer without any special token"


def check_special_ids(subject: Subject) -> Iterator[Finding]:
    """Item 3: ids of special tokens in all places."""
    checked = subject.checked
    problems = [*_disagreements(subject), *_nameless(subject), *_processor(checked)]
    names = {role: getattr(checked.tokenizer, f"{role}_id") for role in ROLES}
    shown = ", ".join(f"{role} {id}" for role, id in names.items() if id is not None)
    if checked.config is None and checked.generation_config is None:
        problems.append(
            AGREE.skipped(
                f"{shown or 'none'}; no config to compare the tokenizer with",
                "give the model's folder",
            )
        )
    yield from AGREE.settled(problems, f"{shown or 'none'}: the same wherever they are named")
    yield from _moved(subject)


def check_chat_template(subject: Subject) -> Iterator[Finding]:
    """Item 3: the chat template speaks in tokens that exist, and answers end where they should."""
    template = template_of(subject.checked)
    if not template:
        yield TEMPLATE.passed("there is none")
        return
    ids, literals = subject.checked.ids, sorted(set(LITERAL.findall(template)))
    known = subject.base.ids if subject.base is not None else ids
    problems = [
        TEMPLATE.judged(
            f"the chat template writes {literal!r}, which is no token",
            "add it as a special token, or write the template with tokens that exist",
            as_base=subject.base is not None
            and literal not in known
            and literal in template_of(subject.base),
        )
        for literal in literals
        if literal not in ids
    ]
    problems += _end_of_turn(subject)
    yield from TEMPLATE.settled(
        problems, f"{counted(len(literals), 'special token')} written in it, none is unknown"
    )


def ids_of(config: PreTrainedConfig | GenerationConfig | None, name: str) -> set[int]:
    """The ids that a config gives for one name: none, one or several.

    Args:
        config: A config, or None.
        name: Such as ``eos_token_id``.
    """
    value = getattr(config, name, None)
    if value is None:
        return set()
    return {int(id) for id in value} if isinstance(value, list | tuple) else {int(value)}


def end_ids(checked: ModelWithTokenizer) -> set[int]:
    """Ids at which generation ends.

    Args:
        checked: The model and its tokenizer.
    """
    found = ids_of(checked.generation_config, "eos_token_id")
    found = found or ids_of(checked.text_config, "eos_token_id")
    own = checked.tokenizer.eos_token_id
    return found or ({own} if own is not None else set())


def template_of(checked: ModelWithTokenizer) -> str:
    """The chat template, all of them where there are several, or an empty string.

    Args:
        checked: The tokenizer.
    """
    template: Any = checked.tokenizer.chat_template
    return "\n".join(template.values()) if isinstance(template, dict) else template or ""


def _named(checked: ModelWithTokenizer, role: str) -> dict[str, set[int]]:
    """The ids of one role by place, places that say nothing left out."""
    own = getattr(checked.tokenizer, f"{role}_id")
    places = {
        "tokenizer": set() if own is None else {own},
        "config": ids_of(checked.text_config, f"{role}_id"),
        "generation_config": ids_of(checked.generation_config, f"{role}_id"),
    }
    return {place: ids for place, ids in places.items() if ids}


def _disagreements(subject: Subject) -> Iterator[Finding]:
    for role in ROLES:
        places = _named(subject.checked, role)
        if len(places) < 2 or set.intersection(*places.values()):
            continue
        shown = ", ".join(f"{place} {sorted(ids)}" for place, ids in places.items())
        base = subject.base
        yield AGREE.judged(
            f"{role}: {shown}",
            f"enter the same {role}_id in config.json, generation_config.json and the tokenizer",
            as_base=base is not None and _named(base, role) == places,
        )


def _nameless(subject: Subject) -> Iterator[Finding]:
    """Ids in a config that are no token."""
    checked = subject.checked
    for place, config in (
        ("config", checked.text_config),
        ("generation_config", checked.generation_config),
    ):
        for name in _id_names(config):
            wrong = {id for id in ids_of(config, name) if id >= 0} - set(checked.tokens)
            base = subject.base
            if wrong:
                of_base = getattr(
                    base, "text_config" if place == "config" else "generation_config", None
                )
                yield AGREE.judged(
                    f"{name} of {place} is {sorted(wrong)}, which is no token",
                    f"correct {name} in {place}.json",
                    as_base=ids_of(of_base, name) == ids_of(config, name),
                )


def _id_names(config: PreTrainedConfig | GenerationConfig | None) -> list[str]:
    if config is None:
        return []
    values: Mapping[str, Any] = config.to_dict()
    return sorted(name for name, value in values.items() if name.endswith("_token_id") and value)


def _processor(checked: ModelWithTokenizer) -> Iterator[Finding]:
    """Ids that the post-processor writes under another token's name."""
    for token, ids in template_ids(checked.state.data["post_processor"]):
        wrong = [id for id in ids if id in checked.tokens and checked.ids.get(token) != id]
        if wrong:
            yield AGREE.failed(
                f"the post-processor writes {some(wrong)} for {token!r}, whose id is "
                f"{checked.ids.get(token)}",
                "enter the token's true id in the post_processor of tokenizer.json",
            )


def _moved(subject: Subject) -> Iterator[Finding]:
    base, checked = subject.base, subject.checked
    if base is None:
        yield MOVED.skipped("whether a special id moved is not known", "give the base")
        return
    taken = set(subject.new_ids or ())  # a slot that was given a text has lost its old one
    before = {item["content"]: item["id"] for item in base.state.added_tokens}
    moved = [
        f"{token} {id} → {checked.ids.get(token)}"
        for token, id in before.items()
        if id not in taken and checked.ids.get(token) != id
    ]
    problems = []
    if moved:
        problems.append(
            MOVED.failed(
                f"moved or gone: {counted(len(moved), 'added token')} of the base: {some(moved)}",
                "keep the ids of the base; new tokens go behind them or into free slots",
            )
        )
    for role in ROLES:
        old, new = (getattr(each.tokenizer, role) for each in (base, checked))
        if old is not None and new != old:
            problems.append(
                MOVED.warned(
                    f"the {role} was {old!r} and is {new!r}",
                    "make sure that data, config and serving use the new one",
                )
            )
    kept = counted(len(before), "added token")
    yield from MOVED.settled(problems, f"as in the base: the ids of {kept}")


def _end_of_turn(subject: Subject) -> Iterator[Finding]:
    """What follows an answer should end generation."""
    checked = subject.checked
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": _ANSWER}]
    try:
        text: Any = checked.tokenizer.apply_chat_template(turns, tokenize=False)
    except (TemplateError, ValueError, TypeError, KeyError, AttributeError) as error:
        yield TEMPLATE.warned(
            f"a question and an answer cannot be written with it: {error}",
            "try it with apply_chat_template; tools that serve chats do the same",
        )
        return
    _, found, rest = str(text).rpartition(_ANSWER)
    added = {item["id"] for item in checked.state.added_tokens}
    ids = checked.tokenizer.encode(rest, add_special_tokens=False) if found else []
    ends, first = end_ids(checked), next((id for id in ids if id in added), None)
    if first is not None and ends and first not in ends:
        yield TEMPLATE.warned(
            f"an answer is followed by {checked.tokens[first]!r} ({first}), at which generation "
            f"does not end (eos_token_id {sorted(ends)})",
            "add its id to eos_token_id in generation_config.json",
        )
