"""Item 6: tokens of roles and protocols are one id, also inside text; stop strings are named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightning_vocab.contract.finding import Check, Finding
from lightning_vocab.contract.subject import ModelWithTokenizer, Subject
from lightning_vocab.vocabulary.measuring.fertility import encode_batch
from lightning_vocab.vocabulary.wording import counted, some

TOKENS = Check(6, "protocol tokens")
STOPS = Check(6, "stop strings")


def check_protocol_tokens(subject: Subject) -> Iterator[Finding]:
    """Item 6: every token that the tokenizer registers, and those asked for."""
    checked = subject.checked
    registered = [item["content"] for item in checked.state.added_tokens]
    asked = [token for token in subject.inputs.protocol_tokens if token not in registered]
    problems = []
    if missing := [token for token in asked if not _is_one_id(checked, token)]:
        problems.append(
            TOKENS.failed(
                f"{some(missing)} are no single token",
                "add them as protocol tokens (AddTokens) and give them rows",
            )
        )
    listed = [*registered, *(token for token in asked if token not in missing)]
    problems += _broken(subject, listed)
    problems += _swallowing(subject)
    yield from TOKENS.settled(
        problems, f"one id alone and inside text: {counted(len(listed), 'token')}"
    )


def check_stop_strings(subject: Subject) -> Iterator[Finding]:
    """Item 6: stop strings that are not one token must be matched as text."""
    checked = subject.checked
    told: Any = getattr(checked.generation_config, "stop_strings", None) or ()
    stops = [*subject.inputs.stop_strings, *([told] if isinstance(told, str) else told)]
    if not stops:
        yield STOPS.skipped("no stop string was named", "give the stop strings of serving, if any")
        return
    spanning = []
    for stop, alone, inside in zip(
        stops,
        encode_batch(checked.tokenizer, stops),
        encode_batch(checked.tokenizer, [f"a{stop}b" for stop in stops]),
        strict=True,
    ):
        if len(alone) != 1 or alone[0] not in inside:
            spanning.append(f"{stop} = {[checked.tokens.get(id, id) for id in alone]}")
    if spanning:
        yield STOPS.warned(
            f"{len(spanning)} of {len(stops)} stop strings span tokens or melt into their "
            f"neighbours: {some(spanning)}",
            "match them as text (stop_strings), never as ids; or add them as protocol tokens",
        )
    else:
        yield STOPS.passed(f"{len(stops)} stop strings are one token each")


def _is_one_id(checked: ModelWithTokenizer, token: str) -> bool:
    return token in checked.ids and encode_batch(checked.tokenizer, [token]) == [
        [checked.ids[token]]
    ]


def _broken_tokens(checked: ModelWithTokenizer, tokens: list[str]) -> set[str]:
    """Tokens that are cut, alone or inside text, or found more than once."""
    if not tokens:
        return set()
    alone = encode_batch(checked.tokenizer, tokens)
    inside = encode_batch(checked.tokenizer, [f"a{token}b" for token in tokens])
    return {
        token
        for token, one, within in zip(tokens, alone, inside, strict=True)
        if one != [checked.ids[token]] or within.count(checked.ids[token]) != 1
    }


def _broken(subject: Subject, tokens: list[str]) -> Iterator[Finding]:
    broken = _broken_tokens(subject.checked, tokens)
    base = subject.base
    of_base = set()
    if base is not None:
        of_base = _broken_tokens(base, [token for token in broken if token in base.ids])
    for tokens_of, as_base in ((broken - of_base, False), (broken & of_base, True)):
        if tokens_of:
            yield TOKENS.judged(
                f"not one id alone and inside text: {counted(len(tokens_of), 'token')}, "
                f"{some(sorted(tokens_of))}",
                "register them with single_word=False and normalized=False, and check that no "
                "other token overlaps them",
                as_base=as_base,
            )


def _swallowing(subject: Subject) -> Iterator[Finding]:
    """Tokens that take the blanks beside them: the blanks are lost on decoding."""
    checked, base = subject.checked, subject.base
    taking = {
        item["content"]: (item["lstrip"], item["rstrip"])
        for item in checked.state.added_tokens
        if item["lstrip"] or item["rstrip"]
    }
    known = {} if base is None else {i["content"]: i for i in base.state.added_tokens}
    new = {checked.tokens.get(id) for id in subject.new_ids or ()}
    fresh = [
        token
        for token, flags in taking.items()
        if token in new
        or (token in known and flags != (known[token]["lstrip"], known[token]["rstrip"]))
    ]
    if fresh:
        yield TOKENS.failed(
            f"blanks beside a token are swallowed (lstrip, rstrip) by "
            f"{counted(len(fresh), 'token')}: {some(fresh)}",
            "register them with lstrip=False and rstrip=False",
        )
    if rest := [token for token in taking if token not in fresh]:
        origin = "; the base has the same" if base is not None else ""
        yield TOKENS.warned(
            f"blanks beside a token are swallowed (lstrip, rstrip) by "
            f"{counted(len(rest), 'token')}: {some(rest)}{origin}",
            "write text around them without blanks",
        )
