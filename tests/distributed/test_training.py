"""Whole runs of a Trainer under `ModelParallelStrategy` on the CPU against one process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from lightning_vocab.callbacks import ExportHuggingFace
from lightning_vocab.datamodule import VocabDataModule
from lightning_vocab.module import VocabExpansionModule
from lightning_vocab.vocabulary import AddTokens, load_tokenizer, save_expansion
from tests.callbacks.modules import make_trainer
from tests.conftest import NEW_TEXTS, case
from tests.distributed.ranks import on_ranks
from tests.distributed.runs import (
    EPOCHS,
    Layout,
    Outcome,
    Source,
    fit,
    largest_error,
    make_loaders,
    make_source,
    run,
)

pytestmark = pytest.mark.ddp


class Chain(NamedTuple):
    """A run on several ranks, on one and on several again, and one process that ran through."""

    source: Source
    layout: Layout
    parts: list[list[Outcome]]
    alone: list[Outcome]


@pytest.fixture(
    scope="module",
    params=[
        case((True, Layout(2, 1)), quick=False, id="tied, data 2"),
        case((False, Layout(1, 2)), quick=False, id="untied, rows 2"),
        case((False, Layout(2, 1)), quick=False, id="untied, data 2"),
        case((True, Layout(1, 2)), quick=False, id="tied, rows 2"),
        case((True, Layout(2, 2)), quick=False, id="tied, data 2, rows 2"),
        case((False, Layout(1, 4)), quick=False, id="untied, rows 4"),
    ],
)
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    tied, layout = request.param
    folder = tmp_path_factory.mktemp("chain")
    source = make_source(folder, tied=tied)
    alone = [fit(source, None, epochs) for epochs in (1, EPOCHS)]
    first, second = folder / "first", folder / "second"
    export = ExportHuggingFace(str(folder / "export"))
    parts = [
        run(source, layout, 1, None, first),
        run(source, Layout(1, 1), 2, first, second),
        run(source, layout, EPOCHS, second, None, export),
    ]
    return Chain(source, layout, parts, alone)


def test_a_run_on_several_ranks_equals_one_process(chain: Chain) -> None:
    for found in chain.parts[0]:
        assert largest_error(found, chain.alone[0]) < 1e-6
        assert found.bits_per_byte == pytest.approx(chain.alone[0].bits_per_byte, rel=1e-5)


def test_ranks_agree_bit_for_bit(chain: Chain) -> None:
    for part in chain.parts:
        for other in part[1:]:
            assert largest_error(other, part[0]) == 0.0


def test_frozen_parameters_have_no_optimizer_state_and_do_not_move(chain: Chain) -> None:
    for found in chain.parts[0]:
        assert found.with_state == chain.alone[0].with_state
        assert all("rows" in name for name in found.with_state)
    for found in chain.parts[2]:
        assert found.with_state == chain.alone[1].with_state
        assert len(found.with_state) == len(found.parameters)


def test_a_checkpoint_goes_from_several_ranks_to_one_and_back(chain: Chain) -> None:
    for found in chain.parts[2]:
        assert largest_error(found, chain.alone[1]) < 5e-6
        assert found.bits_per_byte == pytest.approx(chain.alone[1].bits_per_byte, rel=1e-5)


def test_the_export_of_a_divided_model_is_whole(chain: Chain) -> None:
    exported: Any = AutoModelForCausalLM.from_pretrained(chain.source.folder / "export")
    parameters = chain.parts[2][0].parameters
    start = "model.model.embed_tokens.rows."
    matrix = torch.cat([parameters[f"{start}old"], parameters[f"{start}new"]])
    assert torch.equal(exported.get_input_embeddings().weight, matrix)
    norm = parameters["model.model.norm.weight"]
    assert torch.equal(exported.model.norm.weight, norm)


def test_another_vocabulary_is_refused_before_its_tensors_are_read(chain: Chain) -> None:
    source = chain.source
    other = AddTokens(["<call>"]).extend(load_tokenizer(source.base), base_rows=300)
    expansion = str(save_expansion(other, source.folder / "other", overwrite=True))

    def refused() -> str:
        with pytest.raises(
            ValueError, match=r"12 new tokens .* this run has 1 new tokens"
        ) as error:
            fit(source._replace(expansion=expansion), chain.layout, 2, source.folder / "first")
        return str(error.value)

    assert on_ranks(chain.layout.data * chain.layout.rows, refused)


def run_mixed(source: Source, layout: Layout | None) -> list[Outcome]:
    def work() -> tuple[Any, ...]:
        return tuple(fit(source, layout, EPOCHS, precision="bf16-mixed"))

    number = 1 if layout is None else layout.data * layout.rows
    return [Outcome(*each) for each in on_ranks(number, work)]


@pytest.mark.slow
@pytest.mark.parametrize("layout", [Layout(2, 1), Layout(1, 2)], ids=["data 2", "rows 2"])
def test_mixed_precision_is_nearer_to_one_process_than_that_is_to_float32(
    layout: Layout, tmp_path: Path
) -> None:
    source = make_source(tmp_path, tied=True)
    exact = fit(source, None, EPOCHS)
    (alone,) = run_mixed(source, None)
    first, second = run_mixed(source, layout)
    assert largest_error(first, second) == 0.0
    assert largest_error(first, alone) < largest_error(alone, exact)


@pytest.mark.gpu
def test_a_run_on_a_gpu_equals_one_on_the_cpu(tmp_path: Path) -> None:
    source = make_source(tmp_path, tied=True)

    def work() -> tuple[Any, ...]:
        return tuple(fit(source, Layout(1, 1), EPOCHS, accelerator="gpu"))

    (found,) = [Outcome(*each) for each in on_ranks(1, work)]
    parameters = {name: value.cpu() for name, value in found.parameters.items()}
    assert largest_error(found._replace(parameters=parameters), fit(source, None, EPOCHS)) < 1e-4


class WithAdapter(VocabExpansionModule):
    def configure_model(self) -> None:
        super().configure_model()
        self.adapter = nn.Linear(2, 2)


def test_parameters_beside_the_language_model_are_refused(tmp_path: Path) -> None:
    source = make_source(tmp_path, tied=True)

    def refused() -> str:
        strategy = ModelParallelStrategy(1, 1)
        trainer = make_trainer(tmp_path, [], strategy=strategy)
        with pytest.raises(MisconfigurationException) as error:
            trainer.fit(WithAdapter(source.base, source.expansion), *make_loaders(Layout(1, 1)))
        return str(error.value)

    assert "got adapter.weight, adapter.bias of WithAdapter whole" in on_ranks(1, refused)[0]


@pytest.mark.slow
def test_ranks_that_divide_the_rows_read_the_same_text(tmp_path: Path) -> None:
    source = make_source(tmp_path, tied=True)
    text = tmp_path / "text.txt"
    text.write_text("\n".join(NEW_TEXTS * 8), encoding="utf-8")

    def work() -> list[list[int]]:
        data = VocabDataModule(
            source.base,
            source.expansion,
            train=str(text),
            block_size=16,
            batch_size=2,
            cache_dir=str(tmp_path / "cache"),
        )
        seen: list[list[int]] = []
        strategy = ModelParallelStrategy(1, 2)
        trainer = make_trainer(tmp_path, [], strategy=strategy, devices=2, max_steps=2)
        trainer.fit(Recorded(seen, source), data)
        return seen

    first, second = on_ranks(2, work)
    assert first == second
    assert len(first) == 2


class Recorded(VocabExpansionModule):
    def __init__(self, seen: list[list[int]], source: Source) -> None:
        super().__init__(source.base, source.expansion)
        self.seen = seen

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.seen.append(batch["input_ids"].flatten().tolist())
        return super().training_step(batch, batch_idx)


@pytest.mark.slow
def test_a_kill_while_saving_leaves_the_former_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_saved(strategy: ModelParallelStrategy, _: Any, folder: Path, *args: Any) -> None:
        (folder / ".metadata").write_text("half")
        os._exit(1)

    source, place = make_source(tmp_path, tied=True), tmp_path / "last.ckpt"
    run(source, Layout(1, 1), 1, None, place)
    former = {file: file.read_bytes() for file in place.iterdir()}
    monkeypatch.setattr(ModelParallelStrategy, "save_checkpoint", half_saved)
    with pytest.raises(AssertionError, match="a rank died"):
        run(source, Layout(1, 1), 2, place, place)
    assert {file: file.read_bytes() for file in place.iterdir()} == former
