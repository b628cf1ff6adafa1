"""A grown model that is fit to ship, with everything that the contract can look at."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lightning_vocab.contract import (
    ContractInputs,
    Finding,
    ModelWithTokenizer,
    check_contract,
    load_folder,
)
from lightning_vocab.data.cache import KnownTokenizer, RowCache
from lightning_vocab.data.rows import IGNORED
from lightning_vocab.data.sources import TextSource
from lightning_vocab.data.tokenise import Layout
from lightning_vocab.initializers import SubwordMean
from lightning_vocab.rows import expand_model, export_model, find_split
from lightning_vocab.vocabulary import ContinuedBPE, ExpandedTokenizer, VocabularyExpansion
from lightning_vocab.vocabulary.describe import describe_expansion
from lightning_vocab.vocabulary.fingerprint import backend, fingerprint
from tests.conftest import NEW_TEXTS, TEXTS, make_model, make_tokenizer

BASE_ROWS, NUM_ROWS, TOOL = 304, 320, "<|tool|>"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
)
LANGUAGES = {"old": list(TEXTS), "new": list(NEW_TEXTS)}


@dataclass
class Case:
    """What `check_contract` is given; a fault changes a part of it."""

    model: Any
    tokenizer: Any
    expansion: VocabularyExpansion | None
    base: ModelWithTokenizer | None
    inputs: dict[str, Any]

    def findings(self) -> list[Finding]:
        checked = ModelWithTokenizer.of(self.model, self.tokenizer)
        inputs = ContractInputs(**self.inputs)
        return check_contract(checked, self.tokenizer, self.expansion, self.base, inputs)

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the tokenizer's JSON."""
        self.tokenizer = edited(self.tokenizer, change)
        self.forget_cache()

    def forget_cache(self) -> None:
        """Whatever was cut before the tokenizer was changed is stale by that alone."""
        del self.inputs["cache"]


def edited(
    tokenizer: Any, change: Callable[[dict[str, Any]], None], *, keep_vocab: bool = False
) -> Any:
    """A copy of a tokenizer with another backend."""
    data = json.loads(backend(tokenizer).to_str())
    if not keep_vocab:  # else the library numbers added tokens by the vocabulary's length
        vocab = data["model"]["vocab"]
        vocab |= {item["content"]: item["id"] for item in data["added_tokens"]}
    change(data)
    other = copy.deepcopy(tokenizer)
    other._tokenizer = Tokenizer.from_str(json.dumps(data))
    return other


def failed_items(findings: list[Finding]) -> set[int]:
    return {finding.item for finding in findings if finding.status == "fail"}


def make_base_tokenizer() -> Any:
    """The pico tokenizer with a start token of its own, two tokens of a chat, and a pad token."""
    tokenizer = make_tokenizer()
    extra = ["<|start|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=True) for t in extra])
    tokenizer.bos_token, tokenizer.pad_token = "<|start|>", "<|pad|>"
    tokenizer.chat_template = TEMPLATE

    def put_in_front(data: dict[str, Any]) -> None:
        text, start = {"Sequence": {"id": "A", "type_id": 0}}, "<|start|>"
        front = {"SpecialToken": {"id": start, "type_id": 0}}
        data["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [front, text],
            "pair": [front, text, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {start: {"id": start, "ids": [300], "tokens": [start]}},
        }

    return edited(tokenizer, put_in_front)


def write_base(folder: Path, *, tied: bool) -> Path:
    tokenizer, model = make_base_tokenizer(), make_model(BASE_ROWS, tied=tied)
    for config in (model.config, model.generation_config):
        config.bos_token_id, config.eos_token_id, config.pad_token_id = 300, 0, 303
    model.generation_config.eos_token_id = [0, 302]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def grow(base_tokenizer: PreTrainedTokenizerBase) -> ExpandedTokenizer:
    grown = ContinuedBPE(num_new_tokens=8).extend(base_tokenizer, NEW_TEXTS * 4).tokenizer
    grown.add_tokens([AddedToken(TOOL, normalized=False, special=True)])
    return describe_expansion(base_tokenizer, grown, base_rows=BASE_ROWS)


def write_grown(base: Path, folder: Path) -> tuple[Tensor, Tensor | None]:
    """Expand the base, train it a little, export it; the new rows as they were at first."""
    start = load_folder(base, weights=True)
    expanded = grow(start.tokenizer)
    assert start.model is not None
    expand_model(start.model, expanded, SubwordMean(), pad_to_multiple_of=64)
    split = find_split(start.model)
    assert split is not None
    matrices = list({id(part.rows): part.rows for part in split}.values())
    first = [rows.new.detach().clone() for rows in matrices]
    for rows in matrices:
        noise = torch.randn(rows.new.shape, generator=torch.Generator().manual_seed(2))
        moved = rows.new.data + 0.02 * noise
        usual = rows.old.data.norm(dim=1).median()
        rows.new.data.copy_(moved / moved.norm(dim=1, keepdim=True) * usual)
    export_model(start.model, expanded, folder)
    return first[0], first[1] if len(first) > 1 else None


def make_batch(tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
    """Three documents with their start and end tokens, padded on the right."""
    rows = [[*tokenizer(text).input_ids, tokenizer.eos_token_id] for text in TEXTS]
    length = max(map(len, rows)) + 2
    ids = torch.full((len(rows), length), int(tokenizer.pad_token_id))
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = 1
    labels = ids.masked_fill(mask == 0, IGNORED)
    labels[:, 0] = IGNORED
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def write_cache(folder: Path, tokenizer: PreTrainedTokenizerBase, kind: Any = "packed") -> Path:
    """Rows of two texts, as the data module keeps them."""
    text = folder.parent / f"{folder.name}.txt"
    text.parent.mkdir(parents=True, exist_ok=True)
    text.write_text("\n".join(TEXTS[:2]))
    known = KnownTokenizer(tokenizer, fingerprint(tokenizer))
    source = TextSource(str(text), split="train")
    RowCache(folder).prepare(source, known, Layout(kind, 16))
    return folder
