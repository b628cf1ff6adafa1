"""The contract between tokenizer, model, expansion and data, checked item by item."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from lightning_vocab.contract.caches import check_cache
from lightning_vocab.contract.documents import check_start_and_end
from lightning_vocab.contract.finding import Finding
from lightning_vocab.contract.loading import load_folder
from lightning_vocab.contract.new_rows import check_new_rows
from lightning_vocab.contract.old_rows import check_old_rows
from lightning_vocab.contract.padding import check_padding
from lightning_vocab.contract.protocol import check_protocol_tokens, check_stop_strings
from lightning_vocab.contract.rows_and_ids import (
    check_divisible,
    check_heights,
    check_ids,
    check_padding_idx,
    check_padding_rows,
)
from lightning_vocab.contract.special_ids import check_chat_template, check_special_ids
from lightning_vocab.contract.subject import ContractInputs, ModelWithTokenizer, Subject
from lightning_vocab.contract.text import check_context, check_old_text, check_round_trip
from lightning_vocab.contract.tie import check_tie
from lightning_vocab.contract.training_loss import check_loss, check_memory
from lightning_vocab.vocabulary.collector import collector_paused
from lightning_vocab.vocabulary.expansion import ExpandedTokenizer, VocabularyExpansion
from lightning_vocab.vocabulary.fingerprint import backend, without_limits

CHECKS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    check_heights,
    check_ids,
    check_special_ids,
    check_chat_template,
    check_padding,
    check_start_and_end,
    check_protocol_tokens,
    check_stop_strings,
    check_tie,
    check_memory,
    check_context,
    check_round_trip,
    check_padding_idx,
    check_new_rows,
    check_loss,
    check_divisible,
    check_padding_rows,
    check_cache,
    check_old_text,
    check_old_rows,
)
"""Every check, in the order of the contract's items."""


def check_contract(
    model: nn.Module | ModelWithTokenizer | None,
    tokenizer: PreTrainedTokenizerBase,
    expansion: VocabularyExpansion | ExpandedTokenizer | None = None,
    base: ModelWithTokenizer | str | os.PathLike[str] | None = None,
    inputs: ContractInputs | None = None,
) -> list[Finding]:
    """Check whether model, tokenizer, expansion and data fit each other.

    Nothing is changed: not the model's mode, not its values, not the state of any random generator.
    A check that lacks something it needs is not passed in silence: its finding has the status
    ``skip`` and says what to give. An item may have several findings.

    Cost: one forward pass of 48 tokens, one or two passes over the rows, and the tokenizer over a
    few kilobytes of text. Memory: a split model's rows are merged into one matrix for the time of
    the check; a base given as a folder is not loaded, only its rows are read.

    Args:
        model: A causal language model, split or not, or a module that holds one; None checks the
            tokenizer alone. A `ModelWithTokenizer` (`load_folder`) brings its folder along.
        tokenizer: The tokenizer of the model.
        expansion: The manifest of the grown vocabulary, where it was grown.
        base: Model and tokenizer before growth (`ModelWithTokenizer.of`), or their folder.
        inputs: Batch, texts, sizes, cache and whatever else may be looked at.

    Returns:
        The findings, in the order of the contract's items.

    Raises:
        ValueError: If the model is none, or a folder cannot be read.
        TypeError: If the tokenizer does not run on the tokenizers library.

    Example:
        >>> from lightning_vocab.demo import resolve_base
        >>> from lightning_vocab.vocabulary import load_tokenizer
        >>> findings = check_contract(None, load_tokenizer(resolve_base("demo")))
        >>> [finding.status for finding in findings if finding.name == "round trip"]
        ['pass']
    """
    subject = Subject(
        checked=_checked(model, tokenizer),
        expansion=expansion.expansion if isinstance(expansion, ExpandedTokenizer) else expansion,
        base=load_folder(base) if isinstance(base, str | os.PathLike) else base,
        inputs=ContractInputs() if inputs is None else inputs,
    )
    with _undisturbed(subject):
        return [finding for check in CHECKS for finding in check(subject)]


def has_failed(findings: list[Finding]) -> bool:
    """Whether any check failed.

    Args:
        findings: What `check_contract` returned.
    """
    return any(finding.status == "fail" for finding in findings)


def _checked(
    model: nn.Module | ModelWithTokenizer | None, tokenizer: PreTrainedTokenizerBase
) -> ModelWithTokenizer:
    if isinstance(model, ModelWithTokenizer):
        return model
    if model is None:
        return ModelWithTokenizer(tokenizer)
    return ModelWithTokenizer.of(model, tokenizer)


@contextmanager
def _undisturbed(subject: Subject) -> Iterator[None]:
    """No truncation, no remarks of transformers, and the random numbers of the run left alone."""
    verbosity = transformers_logging.get_verbosity()
    with ExitStack() as stack:
        stack.callback(transformers_logging.set_verbosity, verbosity)
        transformers_logging.set_verbosity_error()
        stack.enter_context(collector_paused())
        stack.enter_context(torch.random.fork_rng(devices=[]))  # nothing is drawn on a device
        for each in (subject.checked, subject.base):
            if each is not None:
                stack.enter_context(without_limits(backend(each.tokenizer)))
        yield
