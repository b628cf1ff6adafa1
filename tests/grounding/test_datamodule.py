"""Pairs to a trained model: what the data module builds, hands out and refuses."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from transformers import AutoModelForCausalLM
from typing_extensions import override

from lightning_vocab.callbacks import ExpansionReport, FreezeBackbone
from lightning_vocab.data.rows import IGNORED
from lightning_vocab.grounding import Pair
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.vocabulary import AddTokens, load_expansion
from tests.conftest import case
from tests.grounding.small import NEW, PAIRS, module_for, prepared, split_rows, trainer, written


@pytest.fixture(scope="module", autouse=True)
def _no_bars() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def test_the_tokens_of_the_pairs_become_new_rows_in_order_of_appearance(
    tied_folder: str, tmp_path: Path
) -> None:
    data = prepared(tmp_path, tied_folder)
    expansion = load_expansion(tmp_path / "expansion").expansion
    assert [token.surface for token in expansion.tokens] == NEW
    assert expansion.new_ids == (300, 301, 302, 303)
    assert data.pairs[1] == Pair(("<a_1>", "<b_2>"), "the cat and the dog")
    assert data.expanded is not None
    assert data.fertility() == {}
    assert data.val_dataloader() == []


def test_an_epoch_asks_every_pair_once_by_every_template_of_both_directions(
    tied_folder: str, tmp_path: Path
) -> None:
    data = prepared(tmp_path, tied_folder)
    asked = []
    for batch in data.train_dataloader():
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            is_target = labels != IGNORED
            assert torch.equal(ids[is_target], labels[is_target])
            asked.append((data.tokenizer.decode(ids[~is_target & (ids != 0)]), labels[is_target]))
    assert len(asked) == 4 * 6
    to_tokens = [labels.tolist() for _, labels in asked if int(labels[-1]) >= 300]
    assert sorted(to_tokens) == sorted([[300]] * 6 + [[301, 302]] * 3 + [[301, 303]] * 3)
    answers = [str(data.tokenizer.decode(labels)) for _, labels in asked if int(labels[-1]) == 0]
    descriptions = [f"{row['description']}<|end|>" for row in PAIRS]
    assert sorted(answer.strip() for answer in answers) == sorted(descriptions * 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "base_folder",
    [case(True, quick=False, id="tied"), case(False, quick=True, id="untied")],
    indirect=True,
)
def test_a_fit_with_weight_decay_moves_all_new_rows_and_nothing_else(
    base_folder: str, tmp_path: Path
) -> None:
    data = module_for(tmp_path, base_folder)
    optimizer = partial(torch.optim.AdamW, lr=0.1, weight_decay=0.5)
    module = VocabExpansionModule(
        base_folder,
        str(tmp_path / "expansion"),
        optimizer=optimizer,
        lr_new_rows=0.1,
        lr_old_rows=0.1,
        lr_backbone=0.1,
        weight_decay_rows=0.5,
    )
    starts: list[Tensor] = []

    class FreezeAndNote(FreezeBackbone):
        @override
        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            super().on_train_start(trainer, pl_module)
            starts.extend(rows.new.detach().clone() for rows in split_rows(module))

    trainer(tmp_path, max_epochs=3, callbacks=[FreezeAndNote()]).fit(module, data)
    base: Any = AutoModelForCausalLM.from_pretrained(base_folder)
    model: Any = module.language_model
    for rows, start in zip(split_rows(module), starts, strict=True):
        assert bool((rows.new != start).any(dim=1).all())
    embedding, head = split_rows(module)
    assert (embedding is head) == base.config.tie_word_embeddings
    assert torch.equal(embedding.old, base.get_input_embeddings().weight)
    assert torch.equal(head.old, base.get_output_embeddings().weight)
    trained = dict(model.base_model.named_parameters())
    backbone = {k: v for k, v in base.base_model.named_parameters() if "embed_tokens" not in k}
    assert all(torch.equal(trained[name], value) for name, value in backbone.items())
    assert len(backbone) == 19


@pytest.mark.slow
def test_old_text_is_scored_before_and_after_a_fit(tied_folder: str, tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text("the cat sat on the mat\n")
    data = module_for(tmp_path, tied_folder, val={"old": str(tmp_path / "old.txt")})
    module = VocabExpansionModule(tied_folder, str(tmp_path / "expansion"), lr_new_rows=0.01)
    report = ExpansionReport()
    trainer(
        tmp_path, max_epochs=1, callbacks=[FreezeBackbone(), report], limit_val_batches=1.0
    ).fit(module, data)
    (row,) = [row for row in report.rows if row.name == "bits per byte, old"]
    assert row.before is not None
    assert row.after is not None
    assert set(data.fertility()) == {"old"}


def test_a_standing_expansion_is_used_and_must_hold_the_tokens(
    tied_folder: str, tmp_path: Path
) -> None:
    prepared(tmp_path, tied_folder)
    written(tmp_path, [*PAIRS, {"token": ["<fig>", "<c>"], "description": "more"}])
    with pytest.raises(ValueError, match=r"1 token of '.*' are no new tokens .*: '<c>'.*overwrite"):
        prepared(tmp_path, tied_folder)
    data = prepared(tmp_path, tied_folder, overwrite_expansion=True)
    assert data.expanded is not None
    assert [token.surface for token in data.expanded.expansion.tokens] == [*NEW, "<c>"]


def test_new_tokens_without_a_pair_are_refused_or_warned_of(
    tied_folder: str, tmp_path: Path
) -> None:
    options = {"extender": AddTokens([*NEW, "<lone>"])}
    with pytest.raises(ValueError, match=r"1 new token .* no pair .*: '<lone>'\. Describe"):
        prepared(tmp_path, tied_folder, **options)
    with pytest.warns(UserWarning, match="1 new token .* no pair .*: '<lone>'"):
        prepared(tmp_path, tied_folder, allow_missing=True, **options)


def test_a_token_of_the_base_is_refused_before_anything_is_built(
    tied_folder: str, tmp_path: Path
) -> None:
    written(tmp_path, [*PAIRS, {"token": "<|end|>", "description": "the end"}])
    with pytest.raises(ValueError, match=r"1 token of the pairs stand.* '<\|end\|>'"):
        prepared(tmp_path, tied_folder)
    assert not (tmp_path / "expansion").exists()


def test_a_broken_file_of_pairs_is_refused_before_anything_is_tokenised(
    tied_folder: str, tmp_path: Path
) -> None:
    prepared(tmp_path, tied_folder)  # a standing expansion: nothing else needs the pairs
    (tmp_path / "old.txt").write_text("the cat sat on the mat\n")
    (tmp_path / "pairs.jsonl").write_text('{"token": "<fig>"}\n')
    cache = tmp_path / "another cache"
    options = {"val": {"old": str(tmp_path / "old.txt")}, "cache_dir": str(cache)}
    with pytest.raises(ValueError, match="'description' on line 1"):
        module_for(tmp_path, tied_folder, **options).prepare_data()
    assert not cache.exists()
    written(tmp_path, PAIRS)
    module_for(tmp_path, tied_folder, **options).prepare_data()
    assert any(cache.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expansion_dir": None}, "give expansion_dir"),
        ({"to_tokens": []}, "at least one template in to_tokens"),
        ({"batch_size": 0}, "batch_size"),
        ({"chat": True}, "a tokenizer with a chat template"),
        ({"block_size": 12}, r"at most 12 tokens \(block_size\), got \d+ longer rows of 24"),
        ({"block_size": 256}, "block_size of at most 128"),
        ({"token_field": "item"}, "'item' on line 1"),
    ],
)
def test_bad_arguments_are_refused(
    tied_folder: str, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        prepared(tmp_path, tied_folder, **options)


def test_rows_are_asked_for_after_setup(tied_folder: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="call prepare_data"):
        module_for(tmp_path, tied_folder).train_dataloader()
