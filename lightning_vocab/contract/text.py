"""Items 9, 10 and 16: what the tokenizer makes of text, also of old text."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from lightning_vocab.contract.finding import Check, Finding
from lightning_vocab.contract.probes import NASTY_TEXT, OLD_TEXT
from lightning_vocab.contract.subject import ModelWithTokenizer, Subject
from lightning_vocab.vocabulary.measuring.fertility import encode_batch
from lightning_vocab.vocabulary.wording import counted, some

CONTEXT = Check(9, "effective context")
ROUND_TRIP = Check(10, "round trip")
CLEANING = Check(10, "cleaning")
OLD_TOKENS = Check(16, "old tokens")
OLD_TEXT_CHECK = Check(16, "old text")

_PIPELINE = ("normalizer", "pre_tokenizer", "decoder")


def check_context(subject: Subject) -> Iterator[Finding]:
    """Item 9: how much text of each language the context holds."""
    context, texts = subject.checked.context, subject.inputs.texts
    if context is None:
        yield CONTEXT.skipped("the config names no context", "give the folder of the model")
        return
    problems = list(_shorter_context(subject, context))
    if not texts:
        yield from problems
        yield CONTEXT.skipped(
            f"{context:,} tokens; how much text they hold was not measured",
            "give texts by language",
        )
        return
    least, shown = subject.inputs.min_context_bytes, []
    for name, documents in texts.items():
        rate = _bytes_per_token(subject.checked.tokenizer, documents)
        held = int(context * rate)
        before = ""
        if subject.base is not None and subject.base.context is not None:
            of_base = subject.base.context * _bytes_per_token(subject.base.tokenizer, documents)
            before = f" (base {int(of_base):,})"
        shown.append(f"{name} {held:,} bytes{before}")
        if least is not None and held < least:
            problems.append(
                CONTEXT.failed(
                    f"{context:,} tokens hold {held:,} bytes of {name}: fewer than {least:,}",
                    f"add tokens for {name}, or a longer context",
                )
            )
    yield from CONTEXT.settled(problems, f"{context:,} tokens hold {'; '.join(shown)}")


def check_round_trip(subject: Subject) -> Iterator[Finding]:
    """Item 10: text comes back as it was, or as the base gives it back."""
    checked, base = subject.checked, subject.base
    if len(checked.tokens) < len(checked.ids):
        yield ROUND_TRIP.skipped("an id that names two tokens comes back as either", "see item 2")
        return
    changed = _changed(checked.tokenizer)
    worse = sorted(_faulty(checked, base, changed), key=list(NASTY_TEXT).index)
    known = [name for name in changed if name not in worse]
    problems = []
    if worse:
        problems.append(
            ROUND_TRIP.failed(
                f"text does not come back: {some(_shown(name, changed[name]) for name in worse)}",
                "restore normalizer, pre-tokenizer and decoder of the base",
            )
        )
    if known:
        origin = "as in the base" if base is not None else "by the tokenizer's design"
        problems.append(
            ROUND_TRIP.warned(
                f"text does not come back, {origin}: {', '.join(known)}",
                "bits per byte flatter such a tokenizer; keep such text away from it",
            )
        )
    yield from ROUND_TRIP.settled(
        problems,
        f"{len(NASTY_TEXT)} kinds of text come back exactly, from blanks to combining marks",
    )
    yield from _cleaning(checked.tokenizer)


def check_old_text(subject: Subject) -> Iterator[Finding]:
    """Item 16: old tokens keep their ids, and no text gets more tokens than from the base."""
    base = subject.base
    if base is None:
        yield OLD_TEXT_CHECK.skipped("nothing to compare with", "give the base")
        return
    yield from OLD_TOKENS.settled(
        [*_moved(subject, base), *_pipeline(subject.checked, base)],
        f"{len(base.ids):,} old tokens keep their ids, their merges come first",
    )
    texts = {"built-in text": OLD_TEXT, **subject.inputs.texts}
    problems, shown = [], []
    for name, documents in texts.items():
        before = list(map(len, encode_batch(base.tokenizer, list(documents))))
        after = list(map(len, encode_batch(subject.checked.tokenizer, list(documents))))
        longer = [
            text for text, old, new in zip(documents, before, after, strict=True) if new > old
        ]
        shown.append(f"{name} {sum(before):,} → {sum(after):,}")
        if longer:
            problems.append(
                OLD_TEXT_CHECK.failed(
                    f"{len(longer):,} of {len(documents):,} pieces of {name} get more tokens than "
                    f"from the base, such as {some((text[:40] for text in longer), 2)}",
                    "append merges only, and add no plain words with add_tokens",
                )
            )
    yield from OLD_TEXT_CHECK.settled(problems, f"no text gets more tokens: {', '.join(shown)}")


def _bytes_per_token(tokenizer: PreTrainedTokenizerBase, documents: Sequence[str]) -> float:
    tokens = sum(map(len, encode_batch(tokenizer, list(documents))))
    return sum(len(text.encode()) for text in documents) / max(1, tokens)


def _shorter_context(subject: Subject, context: int) -> Iterator[Finding]:
    before = None if subject.base is None else subject.base.context
    if before is not None and context < before:
        yield CONTEXT.failed(
            f"the context is {context:,} tokens, that of the base {before:,}",
            "restore max_position_embeddings of the base's config",
        )
    longest = subject.checked.tokenizer.model_max_length
    if context < longest < 10**9:  # transformers writes 1e30 for "not known"
        yield CONTEXT.warned(
            f"the tokenizer lets text have {longest:,} tokens (model_max_length), the model takes "
            f"{context:,}",
            "set model_max_length in tokenizer_config.json to the model's context",
        )


def _changed(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """What comes back of each kind of text that does not come back as it was."""
    encoded = encode_batch(tokenizer, list(NASTY_TEXT.values()))
    returned = {
        name: str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
        for name, ids in zip(NASTY_TEXT, encoded, strict=True)
    }
    return {name: text for name, text in returned.items() if text != NASTY_TEXT[name]}


def _faulty(
    checked: ModelWithTokenizer, base: ModelWithTokenizer | None, changed: Mapping[str, str]
) -> set[str]:
    """The kinds of text that should come back: from the base they do, or the design says so."""
    if base is None:
        return {name for name in changed if _must_be_exact(checked, name, changed[name])}
    of_base = _changed(base.tokenizer)
    faulty = changed.keys() - of_base.keys()
    if checked.state.data["normalizer"] != base.state.data["normalizer"]:
        # What was lost before may come back better with more tokens, not with another normalizer.
        faulty |= {name for name in changed.keys() & of_base if changed[name] != of_base[name]}
    return faulty


def _must_be_exact(checked: ModelWithTokenizer, name: str, returned: str) -> bool:
    """Whether a tokenizer of this kind promises to give a text back.

    Byte-level BPE does, up to the composed form where NFC is its normalizer (Qwen). BPE with byte
    fallback does, up to a leading blank, which is also what it puts in front of a text (Llama 2).
    A Unigram vocabulary or one without all bytes does not.
    """
    state = checked.state
    is_byte_level = "ByteLevel" in str(state.data["pre_tokenizer"])
    has_bytes = bool(state.model.get("byte_fallback")) and "<0x00>" in checked.ids
    if state.model.get("type") != "BPE" or not (is_byte_level or has_bytes):
        return False
    designed = [NASTY_TEXT[name]]
    if "NFC" in _normalizers(state.data["normalizer"]):
        designed.append(unicodedata.normalize("NFC", NASTY_TEXT[name]))
    if has_bytes:
        designed.append(NASTY_TEXT[name].removeprefix(" "))
    return returned not in designed


def _normalizers(part: dict[str, Any] | None) -> set[str]:
    if part is None:
        return set()
    inner = (_normalizers(each) for each in part.get("normalizers", ()))
    return {part["type"]}.union(*inner)


def _shown(name: str, returned: str) -> str:
    return f"{name}: {NASTY_TEXT[name]!r} → {returned!r}"


def _cleaning(tokenizer: PreTrainedTokenizerBase) -> Iterator[Finding]:
    """Whether decoding with the tokenizer's own settings tidies up blanks."""
    text = NASTY_TEXT["punctuation"]
    ids = encode_batch(tokenizer, [text])[0]
    plain = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    shipped = tokenizer.decode(ids)
    if plain == shipped:
        yield CLEANING.passed("decoding leaves blanks alone")
        return
    yield CLEANING.warned(
        f"decoding tidies up blanks: {plain!r} → {shipped!r}",
        "set clean_up_tokenization_spaces to false in tokenizer_config.json",
    )


def _moved(subject: Subject, base: ModelWithTokenizer) -> Iterator[Finding]:
    """Old tokens with another id; special ones are item 3's."""
    taken = set(subject.new_ids or ())
    added = {item["content"] for item in base.state.added_tokens}
    ids = subject.checked.ids
    moved = [
        f"{token} {id} → {ids.get(token)}"
        for token, id in base.ids.items()
        if id not in taken and token not in added and ids.get(token) != id
    ]
    if moved:
        yield OLD_TOKENS.failed(
            f"of another id or gone: {counted(len(moved), 'old token')}: {some(moved)}",
            "keep the ids of the base: their rows have learned them",
        )


def _pipeline(checked: ModelWithTokenizer, base: ModelWithTokenizer) -> Iterator[Finding]:
    differing = [part for part in _PIPELINE if checked.state.data[part] != base.state.data[part]]
    if differing:
        yield OLD_TOKENS.warned(
            f"{', '.join(differing)} differ from the base: text may be cut where the base did not",
            "restore them from the base's tokenizer.json",
        )
    old, new = (state.model.get("merges") or [] for state in (base.state, checked.state))
    if new[: len(old)] != old:
        at = next((k for k, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), len(new))
        yield OLD_TOKENS.failed(
            f"the merges of the base do not come first: merge {at:,} differs",
            "append merges only",
        )
