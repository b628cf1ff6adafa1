"""Faults, each with the one item of the contract that it breaks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from torch import nn

from lightning_vocab.data.rows import IGNORED
from lightning_vocab.loss import NextTokenLoss
from tests.contract.cases import TOOL, Case, write_cache

Fault = Callable[[Case, Path], None]
FAULTS: dict[str, tuple[int, Fault]] = {}
TIED_ONLY: set[str] = set()
UNTIED_ONLY: set[str] = set()


def fault(item: int) -> Callable[[Fault], Fault]:
    """Register a fault under its function's name."""

    def register(made: Fault) -> Fault:
        FAULTS[made.__name__] = (item, made)
        return made

    return register


def matrices(case: Case) -> list[nn.Parameter]:
    """The matrix, or both."""
    parts = (case.model.get_input_embeddings().weight, case.model.lm_head.weight)
    return list({id(part): part for part in parts}.values())


def resized(rows: nn.Parameter, height: int) -> nn.Parameter:
    return nn.Parameter(rows.detach()[:height].clone())


def added(data: dict[str, Any], content: str) -> dict[str, Any]:
    return next(item for item in data["added_tokens"] if item["content"] == content)


# --- 1: rows -------------------------------------------------------------------------------------


@fault(1)
def head_not_resized(case: Case, tmp: Path) -> None:
    case.model.lm_head.weight = resized(case.model.lm_head.weight, 304)


@fault(1)
def embedding_not_resized(case: Case, tmp: Path) -> None:
    embedding = case.model.get_input_embeddings()
    embedding.weight = resized(embedding.weight, 304)


@fault(1)
def rows_shrunk_below_the_tokenizer(case: Case, tmp: Path) -> None:
    for part in (case.model.get_input_embeddings(), case.model.lm_head):
        part.weight = resized(part.weight, 256)
    if case.base is not None and len(matrices(case)) == 2 and case.model.config.tie_word_embeddings:
        case.model.lm_head.weight = case.model.get_input_embeddings().weight
    case.model.get_input_embeddings().padding_idx = None
    case.model.config.vocab_size = 256


@fault(1)
def config_not_updated(case: Case, tmp: Path) -> None:
    case.model.config.vocab_size = 304


@fault(1)
def head_bias_not_resized(case: Case, tmp: Path) -> None:
    case.model.lm_head.bias = nn.Parameter(torch.zeros(304))


# --- 2: ids --------------------------------------------------------------------------------------


@fault(2)
def two_tokens_of_one_id(case: Case, tmp: Path) -> None:
    case.edit(lambda data: data["model"]["vocab"].update(twice=305))


@fault(2)
def an_id_without_a_row(case: Case, tmp: Path) -> None:
    case.edit(lambda data: data["model"]["vocab"].update(beyond=400))


@fault(2)
def a_dead_merge(case: Case, tmp: Path) -> None:
    case.edit(lambda data: data["model"]["merges"].pop())


@fault(2)
def a_token_of_the_manifest_is_gone(case: Case, tmp: Path) -> None:
    def remove(data: dict[str, Any]) -> None:
        data["model"]["merges"].pop()
        data["model"]["vocab"] = {t: i for t, i in data["model"]["vocab"].items() if i != 311}

    case.edit(remove)
    case.model.generation_config.suppress_tokens += [311]


@fault(2)
def a_manifest_of_other_ids(case: Case, tmp: Path) -> None:
    assert case.expansion is not None
    *rest, one, two = case.expansion.tokens
    tokens = (*rest, replace(one, token=two.token), replace(two, token=one.token))
    case.expansion = replace(case.expansion, tokens=tokens)


@fault(2)
def text_framed_by_an_id_without_a_token(case: Case, tmp: Path) -> None:
    def point(data: dict[str, Any]) -> None:
        data["post_processor"]["special_tokens"]["<|start|>"]["ids"] = [319]

    case.edit(point)


# --- 3: special ids ------------------------------------------------------------------------------


@fault(3)
def shifted_specials(case: Case, tmp: Path) -> None:
    def shift(data: dict[str, Any]) -> None:
        vocab, names = data["model"]["vocab"], ("<|im_start|>", "<|im_end|>")
        for name, id in zip(names, (302, 301), strict=True):
            vocab[name] = added(data, name)["id"] = id
        data["added_tokens"].sort(key=lambda item: item["id"])

    case.edit(shift)


@fault(3)
def eos_of_the_config_is_another(case: Case, tmp: Path) -> None:
    case.model.config.eos_token_id = 5


@fault(3)
def pad_of_the_generation_config_is_another(case: Case, tmp: Path) -> None:
    case.model.generation_config.pad_token_id = 1


@fault(3)
def bos_of_the_config_is_no_token(case: Case, tmp: Path) -> None:
    case.model.config.bos_token_id = 319


@fault(3)
def eos_left_out_of_the_generation_config(case: Case, tmp: Path) -> None:
    case.model.generation_config.eos_token_id = [302]


@fault(3)
def chat_template_writes_an_unknown_token(case: Case, tmp: Path) -> None:
    case.tokenizer.chat_template = case.tokenizer.chat_template.replace("im_start", "im_sep")
    case.forget_cache()


@fault(3)
def text_framed_by_the_id_of_another_token(case: Case, tmp: Path) -> None:
    def point(data: dict[str, Any]) -> None:
        data["post_processor"]["special_tokens"]["<|start|>"]["ids"] = [301]

    case.edit(point)


# --- 4: labels of a batch ------------------------------------------------------------------------


@fault(4)
def padding_is_a_target(case: Case, tmp: Path) -> None:
    batch = case.inputs["batch"]
    batch["labels"] = batch["input_ids"].clone()


@fault(4)
def padding_is_attended_and_a_target(case: Case, tmp: Path) -> None:
    batch = case.inputs["batch"]
    batch["labels"] = batch["input_ids"].clone()
    del batch["attention_mask"]


@fault(4)
def end_tokens_masked_by_id(case: Case, tmp: Path) -> None:
    batch = case.inputs["batch"]
    batch["labels"][batch["input_ids"] == 0] = IGNORED


@fault(4)
def labels_shifted_twice(case: Case, tmp: Path) -> None:
    batch = case.inputs["batch"]
    batch["labels"] = batch["labels"].roll(-1, dims=1)


@fault(4)
def pad_is_eos_and_no_mask_tells_them_apart(case: Case, tmp: Path) -> None:
    case.tokenizer.pad_token = case.tokenizer.eos_token
    case.forget_cache()
    case.model.config.pad_token_id = case.model.generation_config.pad_token_id = 0
    case.model.get_input_embeddings().padding_idx = None
    batch = case.inputs["batch"]
    del batch["attention_mask"]
    batch["input_ids"][batch["input_ids"] == 303] = 0


# --- 5: start and end ----------------------------------------------------------------------------


@fault(5)
def trained_without_the_start_token(case: Case, tmp: Path) -> None:
    case.inputs["batch"] = {name: part[:, 1:] for name, part in case.inputs["batch"].items()}


@fault(5)
def start_token_doubled(case: Case, tmp: Path) -> None:
    batch = case.inputs["batch"]
    case.inputs["batch"] = {
        name: torch.cat([part[:, :1], part], dim=1) for name, part in batch.items()
    }


@fault(5)
def trained_without_the_end_token(case: Case, tmp: Path) -> None:
    batch = case.inputs["batch"]
    is_end = batch["input_ids"] == 0
    batch["input_ids"][is_end] = 303
    batch["attention_mask"][is_end] = 0
    batch["labels"][is_end] = IGNORED


@fault(5)
def post_processor_lost(case: Case, tmp: Path) -> None:
    case.edit(lambda data: data.update(post_processor=None))


# --- 6: protocol tokens --------------------------------------------------------------------------


@fault(6)
def lstrip_on_an_added_token(case: Case, tmp: Path) -> None:
    case.edit(lambda data: added(data, TOOL).update(lstrip=True))


@fault(6)
def rstrip_on_a_token_of_the_base(case: Case, tmp: Path) -> None:
    case.edit(lambda data: added(data, "<|im_end|>").update(rstrip=True))


@fault(6)
def single_word_on_an_added_token(case: Case, tmp: Path) -> None:
    case.edit(lambda data: added(data, TOOL).update(single_word=True))


@fault(6)
def role_token_is_none(case: Case, tmp: Path) -> None:
    case.inputs["protocol_tokens"] = ["<|user|>"]


# --- 7: the tie ----------------------------------------------------------------------------------


@fault(7)
def tie_broken_by_a_copy(case: Case, tmp: Path) -> None:
    case.model.lm_head = copy.deepcopy(case.model.lm_head)


TIED_ONLY.add("tie_broken_by_a_copy")


@fault(7)
def tied_though_the_base_is_not(case: Case, tmp: Path) -> None:
    case.model.lm_head.weight = case.model.get_input_embeddings().weight


UNTIED_ONLY.add("tied_though_the_base_is_not")


# --- 8, 9: sizes ---------------------------------------------------------------------------------


@fault(8)
def logits_larger_than_allowed(case: Case, tmp: Path) -> None:
    case.inputs |= {"batch_size": 64, "sequence_length": 32768}  # 2.5 GiB


@fault(9)
def context_shorter_than_the_base(case: Case, tmp: Path) -> None:
    case.model.config.max_position_embeddings = 64


@fault(9)
def a_language_does_not_fit_the_context(case: Case, tmp: Path) -> None:
    case.inputs["texts"] = {**case.inputs["texts"], "thai": ["สวัสดีชาวโลก"]}
    case.inputs["min_context_bytes"] = 150


# --- 10: round trip ------------------------------------------------------------------------------


@fault(10)
def nfkc_put_in_front(case: Case, tmp: Path) -> None:
    case.edit(lambda data: data.update(normalizer={"type": "NFKC"}))


@fault(10)
def blanks_stripped(case: Case, tmp: Path) -> None:
    strip = {"type": "Strip", "strip_left": True, "strip_right": True}
    case.edit(lambda data: data.update(normalizer=strip))


@fault(10)
def decoder_lost(case: Case, tmp: Path) -> None:
    case.edit(lambda data: data.update(decoder=None))


# --- 11: padding_idx -----------------------------------------------------------------------------


@fault(11)
def eos_as_padding_idx(case: Case, tmp: Path) -> None:
    case.model.get_input_embeddings().padding_idx = 0


@fault(11)
def a_new_token_as_padding_idx(case: Case, tmp: Path) -> None:
    case.model.get_input_embeddings().padding_idx = 306


# --- 12: new rows --------------------------------------------------------------------------------


@fault(12)
def nan_in_a_row(case: Case, tmp: Path) -> None:
    with torch.no_grad():
        matrices(case)[-1][307, 3] = float("nan")


@fault(12)
def all_new_rows_equal(case: Case, tmp: Path) -> None:
    with torch.no_grad():
        for rows in matrices(case):
            rows[304:313] = rows[304].clone()


@fault(12)
def a_new_row_equal_to_an_old_one(case: Case, tmp: Path) -> None:
    with torch.no_grad():
        matrices(case)[-1][309] = matrices(case)[-1][20].clone()


@fault(12)
def norm_far_above_the_old_rows(case: Case, tmp: Path) -> None:
    with torch.no_grad():
        matrices(case)[-1][305] *= 50


@fault(12)
def a_zero_row(case: Case, tmp: Path) -> None:
    with torch.no_grad():
        matrices(case)[0][306] = 0


@fault(12)
def a_row_that_was_never_trained(case: Case, tmp: Path) -> None:
    with torch.no_grad():
        matrices(case)[0][304] = case.inputs["initial_rows"][0][0]


# --- 13: the loss --------------------------------------------------------------------------------


@fault(13)
def loss_divided_by_all_positions(case: Case, tmp: Path) -> None:
    loss = NextTokenLoss(case.model)
    case.inputs["loss"] = lambda batch: loss.nats(batch).mean()


@fault(13)
def loss_averaged_by_rows(case: Case, tmp: Path) -> None:
    loss = NextTokenLoss(case.model)

    def mean_of_means(batch: Any) -> Any:
        targets = (batch["labels"][:, 1:] != IGNORED).sum(dim=1)
        return (loss.nats(batch).sum(dim=1) / targets).mean()

    case.inputs["loss"] = mean_of_means


@fault(13)
def chunked_loss_scales_the_logits_and_the_model_does_not(case: Case, tmp: Path) -> None:
    case.model.config.logit_scale = 4.0


# --- 14: divisibility and padding rows -----------------------------------------------------------


@fault(14)
def rows_not_divisible(case: Case, tmp: Path) -> None:
    case.inputs["divisible_by"] = [64, 128]


@fault(14)
def padding_rows_can_be_generated(case: Case, tmp: Path) -> None:
    case.model.generation_config.suppress_tokens = None


@fault(14)
def a_new_token_is_masked_in_generation(case: Case, tmp: Path) -> None:
    case.model.generation_config.suppress_tokens += [312]


# --- 15: caches ----------------------------------------------------------------------------------


@fault(15)
def stale_cache(case: Case, tmp: Path) -> None:
    assert case.base is not None
    case.inputs["cache"] = write_cache(tmp / "stale", case.base.tokenizer)


@fault(15)
def no_rows_in_the_cache(case: Case, tmp: Path) -> None:
    case.inputs["cache"] = tmp


# --- 16: old text and old rows -------------------------------------------------------------------


@fault(16)
def an_old_row_changed(case: Case, tmp: Path) -> None:
    with torch.no_grad():
        matrices(case)[-1][7, 0] += 1e-6


@fault(16)
def old_tokens_changed_places(case: Case, tmp: Path) -> None:
    def swap(data: dict[str, Any]) -> None:
        vocab = data["model"]["vocab"]
        vocab["Q"], vocab["Z"] = vocab["Z"], vocab["Q"]

    case.edit(swap)


@fault(16)
def a_plain_word_was_added(case: Case, tmp: Path) -> None:
    case.tokenizer.add_tokens([AddedToken("o", normalized=False)])
    case.forget_cache()


@fault(16)
def new_merges_put_in_front(case: Case, tmp: Path) -> None:
    def prepend(data: dict[str, Any]) -> None:
        merges = data["model"]["merges"]
        merges.insert(0, merges.pop(-8))

    case.edit(prepend)
