"""What the data module builds once, what it hands to a Trainer, and what it refuses before work."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from typing_extensions import override

from lightning_vocab.data import TextSource
from lightning_vocab.data.cache import RowCache
from lightning_vocab.datamodule import VocabDataModule
from lightning_vocab.demo import corpus
from lightning_vocab.vocabulary import AddTokens, ContinuedBPE, ExpandedTokenizer, load_expansion
from tests.conftest import TEXTS, make_model, make_tokenizer
from tests.quiet import Recorder, quiet_trainer

EXTENDER = AddTokens(["the cat", "<zebra>"])
VALIDATED = ["the cat sat", "the dog and the log " * 9, "é"]


@pytest.fixture(scope="module", autouse=True)
def _no_bars() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and text, and the cache that the tests share."""
    folder = tmp_path_factory.mktemp("place")
    make_tokenizer().save_pretrained(folder / "base")
    make_model(num_rows=304).save_pretrained(folder / "base")
    (folder / "train.txt").write_text("\n".join([*TEXTS[:2]] * 6))
    rows = [json.dumps({"body": text}) for text in VALIDATED]
    (folder / "val.jsonl").write_text("\n".join(rows))
    return folder


def arguments(place: Path, **changes: Any) -> dict[str, Any]:
    val = TextSource(str(place / "val.jsonl"), "body")
    return {
        "base": str(place / "base"),
        "expansion_dir": str(place / "grown"),
        "extender": EXTENDER,
        "train": str(place / "train.txt"),
        "val": {"new_domain": val, "twice": [val, val]},
        "block_size": 16,
        "batch_size": 2,
        "cache_dir": str(place / "cache"),
        **changes,
    }


def prepared(place: Path, **changes: Any) -> VocabDataModule:
    data = VocabDataModule(**arguments(place, **changes))
    data.prepare_data()
    data.setup()
    return data


def scored(batches: list[dict[str, Tensor]]) -> int:
    return sum(int((batch["labels"] != -100).sum()) for batch in batches)


def num_bytes(batches: list[dict[str, Tensor]]) -> int:
    return sum(int(batch["num_bytes"].sum()) for batch in batches)


class Reader(Recorder):
    """Notes rows and sizes of the validation, too, and leaves those for the parent process."""

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(folder)
        self.validated: list[tuple[int, list[int], int]] = []

    @override
    def note(self, batch: dict[str, Tensor]) -> list[list[int]]:
        ids: list[list[int]] = batch["input_ids"].tolist()
        return ids

    @override
    def validation_step(
        self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        rows = zip(self.note(batch), batch["num_bytes"].tolist(), strict=True)
        self.validated += [(dataloader_idx, row, size) for row, size in rows if size]
        self.trainer.strategy.barrier()  # hangs where ranks have unequal numbers of batches

    @override
    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> list[list[int]]:
        return self.note(batch)

    @override
    def on_validation_end(self) -> None:
        if self.folder is not None:
            torch.save(self.validated, self.folder / f"rank{self.global_rank}.pt")


def test_expansion_folder_is_built_with_the_rows_of_the_base(place: Path) -> None:
    data = prepared(place)
    expansion = load_expansion(place / "grown").expansion
    assert [token.surface for token in expansion.tokens] == ["the cat", "<zebra>"]
    assert expansion.base_rows == 304
    assert data.expanded is not None
    assert data.expanded.expansion == expansion


def test_text_is_cut_with_the_grown_tokenizer(place: Path) -> None:
    data = prepared(place)
    id_ = data.tokenizer.convert_tokens_to_ids("the cat")
    batches = [batch for loader in data.val_dataloader() for batch in loader]
    assert any((batch["input_ids"] == id_).any() for batch in batches)
    assert len(data.tokenizer) == len(data.base_tokenizer) + 2


def test_every_byte_of_every_document_is_counted_once(place: Path) -> None:
    batches = list(prepared(place).val_dataloader()[0])
    assert num_bytes(batches) == sum(len(text.encode()) for text in VALIDATED)


def test_every_token_of_every_document_is_scored_once(place: Path) -> None:
    data = prepared(place)
    ids = data.tokenizer(VALIDATED, add_special_tokens=False)["input_ids"]
    assert scored(list(data.val_dataloader()[0])) == sum(map(len, ids))


def test_base_is_scored_on_the_same_bytes_cut_by_the_base_tokenizer(place: Path) -> None:
    data = prepared(place)
    before, after = list(data.base_val_dataloaders()[0]), list(data.val_dataloader()[0])
    assert num_bytes(before) == num_bytes(after)
    ids = data.base_tokenizer(VALIDATED, add_special_tokens=False)["input_ids"]
    assert scored(before) == sum(map(len, ids)) > scored(after)


def test_several_sources_of_one_name_are_one_loader(place: Path) -> None:
    data = prepared(place)
    assert data.val_names == ["new_domain", "twice"]
    one, two = (num_bytes(list(loader)) for loader in data.val_dataloader())
    assert two == 2 * one


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_training_text_is_trained_on_whole(place: Path, layout: str) -> None:
    data = prepared(place, layout=layout)
    ids = data.tokenizer(list(TEXTS[:2]) * 6, add_special_tokens=False)["input_ids"]
    assert scored(list(data.train_dataloader())) == sum(len(each) + 1 for each in ids)


def test_packed_batches_have_no_padding(place: Path) -> None:
    for batch in prepared(place).train_dataloader():
        assert batch["input_ids"].shape[1] == 16
        assert batch["attention_mask"].all()


def test_without_extender_the_folder_that_stands_is_used(place: Path) -> None:
    prepared(place)
    assert prepared(place, extender=None).expanded is not None


def test_without_extender_a_missing_folder_is_told(place: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not an expansion folder"):
        prepared(place, extender=None, expansion_dir=str(place / "nowhere"))


def test_without_folder_the_base_vocabulary_is_used(place: Path) -> None:
    data = prepared(place, extender=None, expansion_dir=None)
    assert data.expanded is None
    assert data.tokenizer is data.base_tokenizer
    assert data.fertility()["train"]["new_tokens_in_use_share"] is None


def test_second_preparation_reads_no_text(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(place)

    def read(*_: Any) -> None:
        raise AssertionError("text was read again")

    monkeypatch.setattr(RowCache, "read", read)
    prepared(place)


def test_preparation_sets_no_state(place: Path) -> None:
    data = VocabDataModule(**arguments(place))
    before = dict(vars(data))
    data.prepare_data()
    assert vars(data) == before


def test_setup_twice_is_setup_once(place: Path) -> None:
    data = prepared(place)
    first = list(data.train_dataloader())
    data.setup("fit")
    for again, batch in zip(data.train_dataloader(), first, strict=True):
        assert torch.equal(again["input_ids"], batch["input_ids"])


def test_loaders_before_setup_are_refused(place: Path) -> None:
    with pytest.raises(RuntimeError, match=r"prepare_data\(\) and setup\(\)"):
        VocabDataModule(**arguments(place)).train_dataloader()


@pytest.mark.slow
def test_growth_is_on_the_text_that_is_named_for_it(place: Path, tmp_path: Path) -> None:
    read: list[str] = []

    class Listener(AddTokens):
        @override
        def extend(
            self,
            tokenizer: PreTrainedTokenizerBase,
            texts: Iterable[str] = (),
            *,
            base_rows: int | None = None,
        ) -> ExpandedTokenizer:
            read.extend(texts)
            return super().extend(tokenizer, (), base_rows=base_rows)

    extend_on = TextSource(str(place / "val.jsonl"), "body")
    folder = str(tmp_path / "grown")
    prepared(place, extender=Listener(["<a>"]), expansion_dir=folder, extend_on=extend_on)
    assert read == VALIDATED


def test_growth_without_any_text_is_refused(place: Path, tmp_path: Path) -> None:
    folder = str(tmp_path / "grown")
    with pytest.raises(ValueError, match="no text to learn from"):
        prepared(place, extender=ContinuedBPE(5), expansion_dir=folder, train=None, val=None)


def test_broken_validation_text_is_told_before_the_tokenizer_grows(
    place: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.txt").write_bytes(b"good\n\xff\n")
    changes = {"val": {"bad": str(tmp_path / "bad.txt")}, "expansion_dir": str(tmp_path / "new")}
    with pytest.raises(ValueError, match="not UTF-8: line 2"):
        prepared(place, **changes)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("extender", [EXTENDER, None])
def test_block_size_above_the_context_is_refused_before_anything_is_written(
    place: Path, tmp_path: Path, extender: AddTokens | None
) -> None:
    folders = {"expansion_dir": str(tmp_path / "new"), "cache_dir": str(tmp_path / "cache")}
    data = VocabDataModule(**arguments(place, **folders, extender=extender, block_size=129))
    for step in (data.prepare_data, data.setup):
        with pytest.raises(ValueError, match=r"block_size of at most 128.*got 129"):
            step()
    assert list(tmp_path.iterdir()) == []


def test_fertility_is_measured_for_each_source_and_kept(place: Path) -> None:
    fertility = prepared(place).fertility()
    assert list(fertility) == ["train", "new_domain", "twice"]
    found = fertility["new_domain"]
    assert found["num_bytes"] == sum(len(text.encode()) for text in VALIDATED)
    assert found["after"]["num_tokens"] < found["before"]["num_tokens"]
    assert found["new_tokens_in_use_share"] == 0.5  # "the cat" occurs, "<zebra>" does not
    kept = [json.loads(file.read_text()) for file in (place / "cache").glob("fertility-*.json")]
    assert fertility in kept


def test_prompts_are_cut_and_end_together(place: Path, tmp_path: Path) -> None:
    data = VocabDataModule(**arguments(place, predict=["the cat", "a model of language"]))
    (ids,) = quiet_trainer(tmp_path).predict(Reader(), datamodule=data) or []
    cut = data.tokenizer(["the cat", "a model of language"], add_special_tokens=False)["input_ids"]
    start = data.tokenizer.bos_token_id
    assert ids[1] == [start, *cut[1]]
    assert ids[0][-2:] == [start, *cut[0]]


def test_documents_of_a_source_may_be_prompts(place: Path) -> None:
    data = prepared(place, predict=TextSource(str(place / "val.jsonl"), "body"), val_batch_size=9)
    assert [len(batch["input_ids"]) for batch in data.predict_dataloader()] == [3]


def test_predicting_reads_no_training_text(place: Path, tmp_path: Path) -> None:
    prepared(place)
    changes = {"extender": None, "train": str(tmp_path / "gone.txt"), "predict": ["the cat"]}
    data = VocabDataModule(**arguments(place, **changes))
    assert quiet_trainer(tmp_path).predict(Reader(), datamodule=data)


def test_text_to_test_on_has_loaders_of_its_own(place: Path) -> None:
    data = prepared(place, val=None, test={"held_out": str(place / "train.txt")})
    assert data.test_names == ["held_out"]
    assert num_bytes(list(data.test_dataloader()[0])) == 6 * (len(TEXTS[0]) + len(TEXTS[1]))


@pytest.mark.parametrize("name", ["train", "new/domain", ""])
def test_name_that_would_confuse_the_log_is_refused(place: Path, name: str) -> None:
    with pytest.raises(ValueError, match="Expected names of letters"):
        VocabDataModule(**arguments(place, val={name: "a.txt"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expansion_dir": None}, "give expansion_dir"),
        ({"num_workers": -1}, "num_workers of at least 0"),
        ({"block_size": 1}, "block_size of at least 2"),
        ({"val_overlap": 16}, "overlap from 1 to block_size - 1"),
        ({"batch_size": 0}, "of at least 1"),
        ({"val_batch_size": 0}, "of at least 1"),
    ],
)
def test_argument_that_does_not_fit_is_refused(
    place: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        VocabDataModule(**arguments(place, **changes))


def test_training_without_text_is_refused(place: Path) -> None:
    data = prepared(place, train=None, extender=None)
    with pytest.raises(MisconfigurationException, match="give train"):
        data.train_dataloader()


def test_predicting_without_prompt_is_refused(place: Path) -> None:
    with pytest.raises(MisconfigurationException, match="give predict"):
        prepared(place).predict_dataloader()


def test_checkpoint_holds_plain_values_and_rebuilds_the_data_module(
    place: Path, tmp_path: Path
) -> None:
    data = VocabDataModule(**arguments(place))
    fitted = quiet_trainer(tmp_path, max_steps=1, limit_val_batches=0)
    fitted.fit(Reader(), datamodule=data)
    fitted.save_checkpoint(tmp_path / "last.ckpt")
    torch.load(tmp_path / "last.ckpt", weights_only=True)
    again = VocabDataModule.load_from_checkpoint(tmp_path / "last.ckpt")
    assert again.plan == data.plan
    assert again.hparams == data.hparams


@pytest.mark.slow
def test_run_that_is_resumed_within_an_epoch_sees_the_rows_that_were_left(
    place: Path, tmp_path: Path
) -> None:
    def fit(max_steps: int, ckpt_path: Path | None = None) -> tuple[Reader, Trainer]:
        module, fitting = Reader(), quiet_trainer(tmp_path, max_steps=max_steps)
        fitting.fit(module, datamodule=VocabDataModule(**arguments(place)), ckpt_path=ckpt_path)
        return module, fitting

    whole, _ = fit(max_steps=14)
    _, interrupted = fit(max_steps=3)
    interrupted.save_checkpoint(tmp_path / "inside.ckpt")
    rest, _ = fit(max_steps=14, ckpt_path=tmp_path / "inside.ckpt")
    assert rest.seen == whole.seen[3:]


@pytest.mark.ddp
def test_two_ranks_validate_every_document_once(place: Path, tmp_path: Path) -> None:
    data = VocabDataModule(**arguments(place))
    quiet_trainer(tmp_path, devices=2, strategy="ddp_fork").validate(
        Reader(tmp_path), datamodule=data, verbose=False
    )
    both = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    alone = Reader()
    quiet_trainer(tmp_path).validate(
        alone, datamodule=VocabDataModule(**arguments(place)), verbose=False
    )
    sizes = sorted((name, size) for name, _, size in both[0] + both[1])
    assert sizes == sorted((name, size) for name, _, size in alone.validated)
    assert sum(size for name, size in sizes if name == 0) == sum(
        len(text.encode()) for text in VALIDATED
    )
    assert both[0]
    assert both[1]


# LightningCLI 2.6 uses what jsonargparse 4.53 calls deprecated.
@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
def test_command_line_takes_paths_sources_and_lists_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", ["lightning-vocab"])

    class Module(LightningModule):
        pass

    source = {"path": "b.jsonl", "text_field": "body", "split": "train[:5%]"}
    cli = LightningCLI(
        Module,
        VocabDataModule,
        run=False,
        save_config_callback=None,
        seed_everything_default=7,
        trainer_defaults={"logger": False, "enable_checkpointing": False},
        args=[
            f"--data.train={json.dumps(['a.txt', source])}",
            f"--data.val={json.dumps({'x': 'demo:english', 'y': [source]})}",
            '--data.predict=["the cat"]',
        ],
    )
    found = TextSource("b.jsonl", "body", split="train[:5%]")
    assert cli.datamodule.plan.train == (TextSource("a.txt", split="train"), found)
    assert cli.datamodule.plan.validation == {
        "x": (TextSource("demo:english", split="validation"),),
        "y": (found,),
    }
    assert cli.datamodule.hparams["predict"] == ["the cat"]


def test_demo_text_flows_through(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def code(split: str) -> Iterator[str]:
        yield f"{split}: {TEXTS[2]}"

    monkeypatch.setattr(corpus, "code", code)
    cache = str(tmp_path / "cache")
    data = prepared(place, train="demo:code", val={"code": "demo:code"}, cache_dir=cache)
    assert num_bytes(list(data.val_dataloader()[0])) == len(f"validation: {TEXTS[2]}")
